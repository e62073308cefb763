"""How often Python looks for garbage that refers to itself.

A server holds runs, some hundred objects each, which are freed as soon as nothing refers to them.
By its own measure Python would look through all of them every few hundred runs: a sixth of the time
of a busy server with ten thousand runs in memory, and a third of a second each time in which nobody
gets an answer. Young garbage is looked for as often as ever.
"""

import gc

__all__ = ["look_at_old_objects_rarely"]

# Of young objects, as is usual; and of all, after so many rounds of those: some ten thousand runs.
_YOUNG = 700
_MIDDLE = 10
_ALL = 1_000


def look_at_old_objects_rarely() -> None:
    """For the process; what is there now, its modules above all, is left out for good."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, _MIDDLE, _ALL)
