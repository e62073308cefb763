"""This host among the others: hosts, leases, placement, and who has which shard.

    membership   who lives, which shards are this host's; joins, buries the dead, leaves
    lease        this host lives; nothing else is in that loop or on its connection
    placement    who should have what, by the hosts that live
    directory    where everything is, as the last look showed it
    ownership    takes shards and gives them up
    readiness    whether this host has what it should have
    holder       what all of that asks of whoever serves the shards

A lease is for liveness only; what keeps two owners apart is the log (`storage.shards`).
"""
