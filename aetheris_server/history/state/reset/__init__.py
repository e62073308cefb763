"""How a run begins as another one, its base, did: a reset, or a fork under another workflow id.

    base:  1 started … | task scheduled, started | completed, …
                       └────── the point ───────┘
    new:   1 started … | task scheduled, started | failed (RESET_WORKFLOW), reapplied …, scheduled

What a new run has of its base are events alone, up to the start of the task that it decides anew.
"""
