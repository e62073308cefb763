"""The pure core of history: a run's state, what changes it, and what it calls for.

Nothing here awaits, reads a clock or does I/O. `apply` is the only code that changes a `RunState`; every
`decide_*` function looks at a state and returns the record that would change it, or raises.

One file per machine: workflow_task, activity, timer, signal, cancel, close.
"""
