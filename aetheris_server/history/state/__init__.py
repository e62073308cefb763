"""The pure core of history: a run's state, what changes it, and what it calls for.

Nothing here awaits, reads a clock or does I/O. A run is made of machines (`machines`, listed in
`registry`); what a machine is, is in `machine`. The drivers ask all of them:

    commands      what a worker's decision comes to
    apply         what a record changes of the state
    observe       what it changes of what workers have
    deadlines     when time alone changes the run, and what
    obligations   which tasks are to be offered
    snapshot      the state as bytes and back

Only `apply` changes a `RunState`; every `decide_*` function looks at a state and returns the record
that would change it, or raises.
"""
