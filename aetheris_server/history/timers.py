"""One heap of deadlines for all runs of a host; calls for a run when one of them has come.

An entry is a hint: whoever is called looks at the run's state. Late and repeated calls do no harm.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import datetime

from aetheris_server.clock import Clock
from aetheris_server.history.state.run import RunKey
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_SCHEDULED = gauge("scheduled_deadlines", "Deadlines in memory, when they were last pruned.")
_FAILED = counter("failed_deadlines", "Deadlines that could not be met because of a fault.")

_LONGEST_WAIT = 60.0
_MIN_LENGTH = 10_000


class Timers:
    """Calls `on_due(key, deadline)` for every scheduled deadline, in order, never early.

    Entries for which `is_needed(key, deadline)` is false are dropped, without a call, when the heap
    has doubled: most deadlines are those of work that ends long before.
    """

    def __init__(
        self,
        clock: Clock,
        on_due: Callable[[RunKey, datetime], None],
        is_needed: Callable[[RunKey, datetime], bool],
    ) -> None:
        self._clock = clock
        self._on_due = on_due
        self._is_needed = is_needed
        self._max_length = _MIN_LENGTH
        self._heap: list[tuple[datetime, int, RunKey]] = []
        self._tiebreak = itertools.count()
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._heap)

    def schedule(self, deadline: datetime, key: RunKey) -> None:
        """Call for the run at, or soon after, a deadline."""
        if len(self._heap) >= self._max_length:
            self._prune()
        is_first = not self._heap or deadline < self._heap[0][0]
        heapq.heappush(self._heap, (deadline, next(self._tiebreak), key))
        if is_first:
            self._wake.set()

    def _prune(self) -> None:
        self._heap = [entry for entry in self._heap if self._is_needed(entry[2], entry[0])]
        heapq.heapify(self._heap)
        self._max_length = max(_MIN_LENGTH, 2 * len(self._heap))
        _SCHEDULED.set(len(self._heap))

    async def run(self) -> None:
        """Call until cancelled."""
        while True:
            self._wake.clear()
            self._call_due()
            wait = _LONGEST_WAIT
            if self._heap:
                until = (self._heap[0][0] - self._clock.now()).total_seconds()
                wait = min(max(until, 0.0), _LONGEST_WAIT)
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _call_due(self) -> None:
        now = self._clock.now()
        while self._heap and self._heap[0][0] <= now:
            deadline, _, key = heapq.heappop(self._heap)
            try:
                self._on_due(key, deadline)
            except Exception:  # noqa: BLE001 - logged whole
                # One run at fault must not keep the deadlines of all others from being met.
                _log.exception("a deadline could not be met", run_id=key.run_id)
                _FAILED.inc()
