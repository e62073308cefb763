"""What the server keeps in Postgres: the log, its indexes, the leases of shards, namespaces.

The only part of the product that speaks to Postgres. It knows rows and their invariants, not what
is in a record: those bytes are history's. Whoever calls gets domain errors, never those of the
driver.
"""
