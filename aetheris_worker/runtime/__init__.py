"""The pure half of the worker: workflow code in, commands out.

Nothing here reads a clock, does I/O, or imports gRPC; time and results come from history events.
The same events always give the same commands.
"""
