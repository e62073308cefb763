"""From history to whoever is owed something: offered until it is done.

dispatcher  takes what is owed, of each kind
lanes       one to each host: batches, retries, and what finds no room
lane        one of them, and its bounds
carrier     what the lanes need of a kind of obligation
tasks       what goes to matching
calls       what goes to other aggregates
"""
