"""What only the garbage collector frees."""

import gc
from collections import Counter
from collections.abc import Callable


def garbage_of(work: Callable[[], object]) -> Counter[str]:
    """What the work leaves behind that refers to itself: how many of each type."""
    work()
    gc.collect()
    gc.disable()
    flags = gc.get_debug()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        work()
        gc.collect()
        return Counter(type(each).__name__ for each in gc.garbage)
    finally:
        gc.garbage.clear()
        gc.set_debug(flags)
        gc.enable()
