"""The write path around the core: load, decide, apply, enqueue, await.

engine       puts the parts together; what the API and recovery use
finding      runs: from memory, or from the log (loader), by id (newest_runs)
changing     runs: applies and queues records (rows), and tells what came of them (committer)
shard_table  getting and losing shards
cache        the runs in memory
wakeups      what time brings to them (timers), and to those that are not (due_scan)
refusals     runs at fault, which are left alone for a while
"""
