"""Aggregates call each other, in this process or another host's; how the calls get there is in
`obligations`.

answering   what a call comes to at its target
recording   what came of it, noted by its caller
"""
