"""Checks of public requests: pure functions that raise InvalidArgumentError naming the field.

They judge a request by itself. Whether what it names exists, and whether the attributes of a
workflow's commands make sense for the run, is history's affair.
"""
