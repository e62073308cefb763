"""How much a worker does at a time."""

import asyncio
from collections import deque


class Slots:
    """A number of places. Whoever takes some gives as many back."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"slots: {count}, expected at least 1")
        self.count = count
        self.free_count = count
        self._waiters: deque[asyncio.Future[None]] = deque()

    def take_nowait(self, wanted: int) -> int:
        """Take up to so many; returns how many."""
        taken = min(wanted, self.free_count)
        self.free_count -= taken
        return taken

    def take_one_more(self) -> None:
        """Take a place even if none is free: what came with an answer cannot be sent back."""
        self.free_count -= 1

    def give_back(self, count: int = 1) -> None:
        """Free places; wakes who waits for one."""
        self.free_count += count
        while self._waiters and self.free_count > 0:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def wait_free(self) -> None:
        """Return once a place is free; takes none."""
        while self.free_count < 1:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
