"""From history to whoever is owed something: offered until it is done.

dispatcher  takes what is owed, of each kind
lanes       one to each host, bounded; batches, retries, and what finds no room
tasks       what goes to matching
calls       what goes to other aggregates
"""
