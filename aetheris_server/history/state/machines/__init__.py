"""One machine per file or folder. A machine owns its values and everything that is done with them.

A folder has `values` (what the machine keeps), `fold` (what its events and facts change), and a
file for each other concern; its `MACHINE` is in `__init__`.
"""
