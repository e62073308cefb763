"""What is waited for of an aggregate in memory: that it is on disk, that it changes.

State runs ahead of the disk. Everything that leaves the process, an answer, a task or a read, waits
until what it shows is committed (`wait_committed`).
"""

import asyncio

from aetheris_server.history.aggregates.transition import Ticket


class Awaited:
    """The part of an aggregate in memory that is the same for all kinds.

    Attributes:
        last_ticket: Of its newest record; None for one that was only loaded.
    """

    __slots__ = ("_watchers", "last_ticket")

    def __init__(self) -> None:
        self.last_ticket: Ticket | None = None
        self._watchers: list[asyncio.Future[None]] = []

    @property
    def is_committed(self) -> bool:
        """Whether all of the state is on disk."""
        return self.last_ticket is None or self.last_ticket.is_done

    @property
    def is_watched(self) -> bool:
        """Whether somebody waits for a change."""
        return bool(self._watchers)

    async def wait_committed(self) -> None:
        """Return when all that the state shows now is on disk.

        So a read first takes from the state what it shows, then waits for this: it is of the moment
        it was asked for, however many transitions follow each other meanwhile.

        Raises:
            UnavailableError: It will not be: the state was wrong and has been dropped.
        """
        if self.last_ticket is not None:
            await self.last_ticket.wait()

    async def wait_changed(self) -> None:
        """Return after the next commit, or when it is dropped."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        try:
            await watcher
        except asyncio.CancelledError:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
            raise

    def abandon(self) -> None:
        """Send those who wait for it to the one that is loaded in its place."""
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for a change."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)
