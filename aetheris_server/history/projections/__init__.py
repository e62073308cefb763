"""Tables that follow from the log: rows that are made of records, in the records' transactions.

projection  what one is: a table, and what each event and fact adds to it
registry    those that there are, by name
errors      why one could not be made again, or is not as it should be

`history/rebuild.py` makes a table again from the log.
"""
