"""Where a run's code waits, for people: each of its tasks, and the lines at which that stands.

The user's innermost line comes first, below it what led there; the lines of Python and of the
worker are shown only where there is none of the user's.
"""

import asyncio
import linecache
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, cast

from aetheris_worker.runtime.call_site import is_of_user

_FRAMES = ("cr_frame", "gi_frame", "ag_frame")
_AWAITED = ("cr_await", "gi_yieldfrom", "ag_await")


def stack_trace(tasks: Iterable[asyncio.Task[Any]]) -> str:
    """A paragraph for each task, oldest first; empty where there is none."""
    return "\n\n".join(_describe(task) for task in tasks)


def _describe(task: asyncio.Task[Any]) -> str:
    frames = list(_frames_of(task.get_coro()))
    shown = [frame for frame in frames if is_of_user(frame.f_code.co_filename)] or frames
    return "\n".join([f"{task.get_name()}:", *map(_line, reversed(shown))])


def _frames_of(awaited: object) -> Iterator[FrameType]:
    """Of a coroutine and of what it awaits, down to what is no code: outermost first."""
    while awaited is not None:
        frame = _first(awaited, _FRAMES)
        if frame is None:
            return
        yield cast(FrameType, frame)
        awaited = _first(awaited, _AWAITED)


def _first(owner: object, names: Iterable[str]) -> object:
    return next(
        (value for name in names if (value := getattr(owner, name, None)) is not None), None
    )


def _line(frame: FrameType) -> str:
    code, number = frame.f_code, frame.f_lineno
    source = linecache.getline(code.co_filename, number, frame.f_globals).strip()
    return f"  {code.co_filename}:{number} in {code.co_name}" + (f": {source}" if source else "")
