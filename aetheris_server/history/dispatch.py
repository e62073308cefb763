"""From history to matching: tasks that are owed are offered until matching has them.

Nothing here is durable. What is lost with the process is derived again from the state.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Iterable

from aetheris.server.v1 import matching_service_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import UnavailableError
from aetheris_server.history.state.times import from_timestamp
from aetheris_server.loops import is_cancelled
from aetheris_server.rpc.peers import MatchingPeer
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_OFFERED = counter("dispatch_offered", "Tasks offered to matching.")
_FAILED = counter("dispatch_failed", "Offers that matching could not take; they are repeated.")
_WAITING = gauge("dispatch_queue_length", "Tasks that wait to be offered.")

_MAX_BATCH = 500
_MAX_CONCURRENT_BATCHES = 16
_OFFER_TIMEOUT = 10.0
_RETRY_INITIAL_INTERVAL = 0.1
_RETRY_MAXIMUM_INTERVAL = 5.0

_TaskRef = matching_service_pb2.TaskRef


class Dispatcher:
    """Offers tasks to matching, several batches at a time.

    What a failed batch held is offered again later, queue by queue, so that one that cannot be
    reached does not hold up the others. Nothing waits in the place of what can go.
    """

    def __init__(self, matching: MatchingPeer, clock: Clock) -> None:
        self._matching = matching
        self._clock = clock
        self._queue: deque[_TaskRef] = deque()
        self._later: list[tuple[float, int, float, list[_TaskRef]]] = []
        self._tiebreak = itertools.count()
        self._wake = asyncio.Event()

    def offer(self, refs: Iterable[_TaskRef]) -> None:
        """Offer tasks soon."""
        self._queue.extend(refs)
        if self._queue:
            self._wake.set()

    @property
    def is_behind(self) -> bool:
        """Whether matching takes tasks more slowly than they come, or not at all."""
        return bool(self._later) or len(self._queue) > _MAX_BATCH

    async def run(self) -> None:
        """Offer until cancelled."""
        slots = asyncio.Semaphore(_MAX_CONCURRENT_BATCHES)
        async with asyncio.TaskGroup() as offers:
            while not is_cancelled():
                await self._wait_for_work()
                while not is_cancelled() and (work := self._try_take()) is not None:
                    await slots.acquire()
                    offers.create_task(self._offer(*work)).add_done_callback(
                        lambda _: slots.release()
                    )

    async def _wait_for_work(self) -> None:
        self._wake.clear()
        if self._queue:
            return
        wait = None
        if self._later:
            wait = max(self._later[0][0] - self._clock.monotonic(), 0.0)
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            return

    def _try_take(self) -> tuple[list[_TaskRef], float] | None:
        """The next batch, and how long it waits after a failure; None if nothing can go now."""
        if self._queue:
            size = min(len(self._queue), _MAX_BATCH)
            batch = [self._queue.popleft() for _ in range(size)]
            _WAITING.set(len(self._queue) + len(self._later))
            return batch, _RETRY_INITIAL_INTERVAL
        if self._later and self._later[0][0] <= self._clock.monotonic():
            _, _, interval, batch = heapq.heappop(self._later)
            return batch, interval
        return None

    async def _offer(self, batch: list[_TaskRef], interval: float) -> None:
        try:
            async with asyncio.timeout(_OFFER_TIMEOUT):
                await self._matching.add_tasks(batch)
            _OFFERED.inc(len(batch))
            return
        except (UnavailableError, TimeoutError) as error:
            _log.warning("matching did not take tasks", count=len(batch), error=str(error))
        except Exception:  # noqa: BLE001 - logged whole
            # Matching's fault, maybe on another host, must not end this one.
            _log.exception("matching did not take tasks", count=len(batch))
        _FAILED.inc(len(batch))
        self._postpone(batch, interval)

    def _postpone(self, batch: list[_TaskRef], interval: float) -> None:
        now = self._clock.now()
        by_queue: dict[tuple[str, str, int], list[_TaskRef]] = {}
        for ref in batch:
            if ref.query_id and from_timestamp(ref.expire_time) <= now:
                continue
            key = (ref.namespace_id, ref.task_queue, ref.task_queue_type)
            by_queue.setdefault(key, []).append(ref)
        due = self._clock.monotonic() + interval
        next_interval = min(interval * 2, _RETRY_MAXIMUM_INTERVAL)
        for refs in by_queue.values():
            heapq.heappush(self._later, (due, next(self._tiebreak), next_interval, refs))
        self._wake.set()
