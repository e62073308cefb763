"""The write path around the cores: load, decide, apply, enqueue, await. It knows no kind of
aggregate; what it needs of any is in `aggregates`.

engine       puts the parts together; what recovery and the rooms of the kinds use
finding      aggregates: from memory, or from the log (loader)
changing     aggregates: applies and queues records (rows), and tells what came of them (committer)
shard_table  getting and losing shards
cache        the aggregates in memory
wakeups      what time brings to them (timers), and to those that are not (due_scan)
refusals     aggregates at fault, which are left alone for a while
"""
