"""What has a log: an aggregate. A run is one kind; this package knows none.

key         names one
aggregate   one in memory: what the engine, recovery and the cache need of any
awaited     who waits for one
kind        what they need to know of a kind to begin and to load one
kinds       the kinds of a process, by name
index       how one is found: its row
own_time    its time, which never goes back
transition  a record on its way to the disk
obligation  what an aggregate owes the outside
records     records as they are stored, and their hash chain
"""
