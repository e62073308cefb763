"""Makes room for time-machine, which tests use to move the clock.

It writes into the C functions of time and datetime, and takes for these whatever their names stand
for: a replacement of the guard's there crashes the process. So the names are given back while it
is loaded, which is when it looks, and while it writes. Nothing happens where it is not installed.
"""

import importlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

_MODULE: Final = "_time_machine"
# The last is of releases before 3.
_WRITERS: Final = ("patch", "unpatch", "patch_if_needed")


def make_room(originals_shown: Callable[[], AbstractContextManager[None]]) -> None:
    """Have it look and write only while `originals_shown` is entered."""
    if importlib.util.find_spec(_MODULE) is None:
        return
    with originals_shown():
        module = importlib.import_module(_MODULE)
    for name in _WRITERS:
        write = getattr(module, name, None)
        if write is not None:
            setattr(module, name, _with_originals(write, originals_shown))


def _with_originals(
    write: Callable[[], Any], originals_shown: Callable[[], AbstractContextManager[None]]
) -> Callable[[], Any]:
    def write_with_originals() -> Any:
        with originals_shown():
            return write()

    return write_with_originals
