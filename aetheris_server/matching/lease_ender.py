"""Ends leases on the backlog, off the way of a task to its worker.

One round trip at a time: what gathers while one is in flight goes with the next. If Redis does not
answer, they are forgotten: the leases expire, and history refuses what was started already.
"""

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from typing import assert_never

from aetheris_server.errors import StorageUnavailableError
from aetheris_server.loops import is_cancelled
from aetheris_server.matching.backlog import Backlog, Counts, LeaseEnds
from aetheris_server.matching.offers import QueueKey, TaskLease
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)


class Fate(Enum):
    """What became of a leased task."""

    DONE = auto()
    """It is started, or gone."""
    RETURNED = auto()
    """Its poller disappeared; the next may have it at once."""
    POSTPONED = auto()
    """History could not start it now."""


class LeaseEnder:
    """Gathers the fates of leased tasks and tells Redis. `run` belongs to one asyncio task."""

    def __init__(self, backlog: Backlog, on_counts: Callable[[QueueKey, Counts], None]) -> None:
        """Args:
        on_counts: Told what waits where a task was returned.
        """
        self._backlog = backlog
        self._on_counts = on_counts
        self._open: dict[QueueKey, LeaseEnds] = {}
        self._has_open = asyncio.Event()

    def end_lease(self, queue: QueueKey, lease: TaskLease, fate: Fate) -> None:
        """Note what became of a leased task."""
        ends = self._open.get(queue)
        if ends is None:
            ends = self._open[queue] = LeaseEnds()
        match fate:
            case Fate.DONE:
                ends.done.append(lease)
            case Fate.RETURNED:
                ends.returned.append(lease)
            case Fate.POSTPONED:
                ends.postponed.append(lease)
            case _:
                assert_never(fate)
        self._has_open.set()

    async def run(self) -> None:
        """Tell Redis, again and again, until cancelled."""
        while not is_cancelled():
            await self._has_open.wait()
            try:
                await self.flush()
            except Exception:  # noqa: BLE001 - the leases expire; ending the polls helps nobody
                _log.exception("leases could not be ended")

    async def flush(self) -> None:
        """Tell Redis what has gathered."""
        ends, self._open = self._open, {}
        self._has_open.clear()
        if not ends:
            return
        try:
            counts = await self._backlog.end_leases(ends)
        except StorageUnavailableError as error:
            _log.warning("leases are left to expire", queues=len(ends), error=str(error))
            return
        for queue, of_queue in counts.items():
            self._on_counts(queue, of_queue)
