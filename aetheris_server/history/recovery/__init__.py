"""What a taken shard owes, and what keeps that short.

recovery    offers again what the runs of taken shards owe, and what found no room
sweep       offers again, slowly, what has been owed for long
settling    moves the watermarks and flags runs, so that there is little to read
"""
