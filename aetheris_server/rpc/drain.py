"""The end of waiting: lets a server that shuts down answer its long polls at once.

A poll waits inside `DrainGate.run`. When draining begins, every wait is cancelled and gives None,
as if its time were up; what is waited for must lose nothing when it is cancelled.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["DrainGate"]

T = TypeVar("T")


class DrainGate:
    """Holds the waits of one server. Used from one event loop."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        return self._is_draining

    @property
    def wait_count(self) -> int:
        """How many wait now."""
        return len(self._waits)

    def begin_drain(self) -> None:
        """End every wait, and every later one at once. Repeating it does nothing."""
        self._is_draining = True
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)

    async def run(self, work: Coroutine[Any, Any, T], timeout: float) -> T | None:
        """What `work` gives, or None where it took longer than `timeout` seconds or draining began.

        `work` runs in the caller's task; cancelling the caller cancels it.
        """
        if self._is_draining:
            work.close()
            return None
        wait = asyncio.timeout(timeout)
        try:
            async with wait:
                self._waits.add(wait)
                return await work
        except TimeoutError:
            # One that `work` itself raised is not ours to swallow.
            if wait.expired():
                return None
            raise
        finally:
            self._waits.discard(wait)
