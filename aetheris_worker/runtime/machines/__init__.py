"""The machines of a run's code: a module owns one kind of thing that code asks for or is told of,
such as a timer. The drivers find them in `runtime.registry`.
"""
