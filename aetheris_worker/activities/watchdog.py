"""Notices async activities that block the worker's event loop, where all else waits for them.

The loop shows now and then that it lives; a thread looks whether it has, and says where it is if
not.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final

from aetheris_worker.activities.calls import call_async

_LOGGER: Final = logging.getLogger("aetheris.worker")

LIMIT: Final = 2.0


class LoopWatchdog:
    """Watches the event loop of the thread that starts it."""

    def __init__(self, limit: float | None = None) -> None:
        self._limit = LIMIT if limit is None else limit
        self._stop = threading.Event()
        self._thread_id = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_sign = 0.0

    def start(self) -> None:
        """Watch from now on."""
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._show_sign()
        self._thread = threading.Thread(target=self._run, name="aetheris-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._thread is not None:
            self._thread.join(self._limit)

    def _show_sign(self) -> None:
        assert self._loop is not None
        self._last_sign = time.monotonic()
        self._timer = self._loop.call_later(self._limit / 4, self._show_sign)

    def _run(self) -> None:
        reported = 0.0
        while not self._stop.wait(self._limit / 4):
            sign = self._last_sign
            elapsed = time.monotonic() - sign
            if elapsed < self._limit or sign == reported:
                continue
            reported = sign
            frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage]
            _LOGGER.error(
                "%s blocks the event loop of the worker, which has stood still for %.1f s. An "
                "async activity must await, or be a plain function, in a thread. It is at:\n%s",
                _blocking_activity(frame),
                elapsed,
                "".join(traceback.format_stack(frame)) if frame is not None else "unknown",
            )


def _blocking_activity(frame: FrameType | None) -> str:
    for outer in _frames(frame):
        if outer.f_code is call_async.__code__:
            function = outer.f_locals.get("function")
            return f"activity {getattr(function, '__qualname__', function)!r}"
    return "something"


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
