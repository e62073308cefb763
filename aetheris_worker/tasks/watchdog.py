"""Notices workflow code that blocks.

Workflow code runs on the worker's own event loop: that is the fastest, and code that keeps the
rules waits for nothing. Code that does block (time.sleep, a request, an endless loop) stops the
whole worker; this thread sees it and says where.
"""

import logging
import sys
import threading
import time
import traceback
from types import FrameType
from typing import Final

_LOGGER: Final = logging.getLogger("aetheris.worker")

LIMIT: Final = 2.0


class Watchdog:
    """Watches one thread.

    Attributes:
        watched: What runs now, as (label, monotonic time of its begin); None between two.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self.watched: tuple[str, float] | None = None
        self._limit = limit
        self._stop = threading.Event()
        self._thread_id = 0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Watch the calling thread."""
        self._thread_id = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="aetheris-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self._limit)

    def _run(self) -> None:
        reported: tuple[str, float] | None = None
        while not self._stop.wait(self._limit / 4):
            watched = self.watched
            if watched is None or watched is reported:
                continue
            elapsed = time.monotonic() - watched[1]
            if elapsed < self._limit:
                continue
            reported = watched
            frames: dict[int, FrameType] = sys._current_frames()  # pyright: ignore[reportPrivateUsage]
            frame = frames.get(self._thread_id)
            stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown"
            _LOGGER.error(
                "potential deadlock: workflow code of %s has not yielded for %.1f s; "
                "the worker stands still. It is at:\n%s",
                watched[0],
                elapsed,
                stack,
            )
