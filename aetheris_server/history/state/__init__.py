"""The pure core of history: a run's state, what changes it, and what it calls for.

Nothing here awaits, reads a clock or does I/O. `apply` is the only code that changes a `RunState`;
every `decide_*` function looks at a state and returns the record that would change it, or raises.

One file per machine: workflow_task, activity, signal, close; commands has the worker's decisions,
timers among them, and deadlines what time alone does to all of them.
"""
