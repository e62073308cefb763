"""`aetheris-admin`: the command line of those who run workflows and clusters.

One module per command group; `session` connects and reports errors, `plain` turns answers into
JSON, `tables` into what people read.
"""
