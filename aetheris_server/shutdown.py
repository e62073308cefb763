"""How a process ends once a signal asks for it: by itself, within a limit, or else by force.

first signal     what runs is cancelled, or, where it serves, told by `wait` to drain
the limit        what still runs is named in the log, and the process ends with code 1
second signal    the process ends at once, as by default
"""

import asyncio
import gc
import inspect
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Coroutine, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, cast

from aetheris_server.loops import end_tasks
from aetheris_server.telemetry import get_logger

__all__ = ["Shutdown", "describe_task"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOG_TIMEOUT = 2.0

_log = get_logger(__name__)


class Shutdown:
    """The end of one process. Used from its event loop."""

    def __init__(self, limit: float) -> None:
        """Args:
        limit: Seconds that the process may take to end after the first signal.
        """
        self._limit = limit
        self._is_asked = asyncio.Event()
        self._is_serving = False

    async def run(self, command: Coroutine[Any, Any, None]) -> bool:
        """Run a command to its end, or until a signal; whether it ended by itself or was drained.

        Raises:
            Exception: What the command raised.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._take_signal, loop)
        work = loop.create_task(command, name="command")
        asked = loop.create_task(self._is_asked.wait(), name="signals")
        await asyncio.wait([work, asked], return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and not self._is_serving:
            await end_tasks([work])
        await end_tasks([asked])
        await asyncio.wait([work])
        if work.cancelled():
            return False
        work.result()
        return True

    async def wait(self) -> None:
        """Return when a signal asks for the end, which is up to the caller from here on."""
        self._is_serving = True
        await self._is_asked.wait()

    def ask(self) -> None:
        """Ask for the end, as the first signal does; that may still come. Again is harmless."""
        if self._is_asked.is_set():
            return
        self._is_asked.set()
        # A thread: what hangs may be the event loop itself.
        loop = asyncio.get_running_loop()
        watchdog = threading.Timer(self._limit, self._give_up, [loop])
        watchdog.daemon = True
        watchdog.start()

    def _take_signal(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            # Whoever asks twice does not want to wait, not even for Python.
            signal.signal(number, signal.SIG_DFL)
        self.ask()

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not even a log that cannot be written may keep the process.
        end = threading.Timer(_LOG_TIMEOUT, os._exit, [1])
        end.daemon = True
        end.start()
        try:
            _log.error(
                "the process does not end; ending it by force",
                seconds=self._limit,
                tasks=_describe_tasks(loop),
                running=_describe_main_thread(),
            )
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)


def describe_task(task: asyncio.Task[Any]) -> str:
    """The name of a task that waits, and the calls in which it does so, outermost first."""
    return f"{task.get_name()}: {' > '.join(map(_place, _frames(task.get_coro())))}"


def _describe_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    counts = Counter(describe_task(task) for task in asyncio.all_tasks(loop))
    return [f"{count} x {text}" if count > 1 else text for text, count in counts.items()]


def _place(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({Path(code.co_filename).name}:{frame.f_lineno})"


def _frames(awaited: Any) -> Iterator[FrameType]:
    while awaited is not None:
        for prefix, below in (("cr", "cr_await"), ("ag", "ag_await"), ("gi", "gi_yieldfrom")):
            frame = getattr(awaited, f"{prefix}_frame", None)
            if frame is not None:
                yield frame
                awaited = getattr(awaited, below)
                break
        else:
            awaited = _generator_of(awaited)


def _generator_of(step: object) -> object | None:
    """The async generator that is awaited through a step of it, which does not tell."""
    for referent in gc.get_referents(step):
        if inspect.isasyncgen(referent):
            return cast("object", referent)
    return None


def _describe_main_thread() -> str:
    frame = sys._current_frames().get(  # pyright: ignore[reportPrivateUsage]
        threading.main_thread().ident or 0
    )
    return _place(frame) if frame is not None else ""
