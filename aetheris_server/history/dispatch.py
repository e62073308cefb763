"""From history to matching: tasks that are owed are offered until matching has them.

Nothing here is durable. What is lost with the process is derived again from the state, and so is
what finds no room: the runs of its shard are asked again what they owe, once there is some.

Each host that tasks go to has a lane of its own, so that one that is dead or slow holds up nobody
else. Within a lane, what a failed batch held is offered again later, queue by queue. Nothing waits
in the place of what can go.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf

from aetheris.server.v1 import matching_service_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import UnavailableError
from aetheris_server.history.times import from_timestamp
from aetheris_server.ids import shard_of
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.rpc.peers import MatchingPeer
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_OFFERED = counter("dispatch_offered", "Tasks offered to matching.")
_FAILED = counter("dispatch_failed", "Offers that matching could not take; they are repeated.")
_SKIPPED = counter("dispatch_skipped", "Tasks that found no room; they are derived again.")
_WAITING = gauge("dispatch_queue_length", "Tasks that wait to be offered, or to be taken.")

LANE_MAX_TASKS = 20_000
LANE_MAX_BYTES = 32 * 1024 * 1024

_MAX_BATCH = 500
# Well below what one message to another host may have.
_MAX_BATCH_BYTES = 1024 * 1024
_MAX_CONCURRENT_BATCHES = 16
_OFFER_TIMEOUT = 10.0
_RETRY_INITIAL_INTERVAL = 0.1
_RETRY_MAXIMUM_INTERVAL = 5.0
# A lane that has taken nothing for so long is not waited for.
_STALLED_AFTER = 2.0
_LOOK_INTERVAL = 0.5

_TaskRef = matching_service_pb2.TaskRef

Locate = Callable[[_TaskRef], str | None]
"""The address of the host that a task goes to; None is this one."""


@dataclass(slots=True)
class _Lane:
    """What goes to one host. The counts are of all that it has not taken yet."""

    queue: deque[_TaskRef] = field(default_factory=deque[_TaskRef])
    task_count: int = 0
    byte_count: int = 0
    batch_count: int = 0
    last_taken_at: float = 0.0

    @property
    def is_full(self) -> bool:
        return self.task_count >= LANE_MAX_TASKS or self.byte_count >= LANE_MAX_BYTES

    @property
    def has_room(self) -> bool:
        """Whether it is worth while to derive what found no room before."""
        return self.task_count <= LANE_MAX_TASKS // 2 and self.byte_count <= LANE_MAX_BYTES // 2

    def count_in(self, ref: _TaskRef) -> None:
        self.task_count += 1
        self.byte_count += ref.ByteSize()

    def count_out(self, refs: Iterable[_TaskRef]) -> None:
        for ref in refs:
            self.task_count -= 1
            self.byte_count -= ref.ByteSize()


@dataclass(frozen=True, slots=True, order=True)
class _Postponed:
    """Tasks of one queue that wait for their next try; `interval` is what they wait after it."""

    due: float
    tiebreak: int
    interval: float = field(compare=False)
    address: str | None = field(compare=False)
    refs: list[_TaskRef] = field(compare=False)


class Dispatcher:
    """Offers tasks to matching, several batches per lane at a time."""

    def __init__(
        self,
        matching: MatchingPeer,
        clock: Clock,
        locate: Locate = lambda _: None,
        shard_count: int = 1,
    ) -> None:
        """Args:
        matching: Takes the tasks of a lane in one call.
        clock: Of this host.
        locate: Where a task goes.
        shard_count: Of the cluster.
        """
        self._matching = matching
        self._clock = clock
        self._locate = locate
        self._shard_count = shard_count
        self._lanes: dict[str | None, _Lane] = {}
        self._later: list[_Postponed] = []
        self._tiebreak = itertools.count()
        # Until when a query is waited for, by the clock for intervals.
        self._query_deadlines: dict[str, float] = {}
        self._skipped: dict[str | None, set[int]] = {}
        self._wake = asyncio.Event()
        self._skipping = asyncio.Event()
        self._moved = asyncio.Event()

    def offer(self, refs: Iterable[_TaskRef]) -> None:
        """Offer tasks soon, or, where a lane is full, some time after it has room again.

        Those of one lane find room together or not at all, so that what a run owes can be offered
        whole however much it is. Queries cannot be derived, and are few: somebody waits for each.
        They always find room.
        """
        full: dict[str | None, bool] = {}
        for ref in refs:
            address = self._locate(ref)
            lane = self._lane_to(address)
            if full.setdefault(address, lane.is_full) and not ref.query_id:
                _SKIPPED.inc()
                self.skip([shard_of(ref.namespace_id, ref.workflow_id, self._shard_count)], address)
                continue
            if ref.query_id:
                left = from_timestamp(ref.expire_time) - self._clock.now()
                deadline = self._clock.monotonic() + left.total_seconds()
                self._query_deadlines[ref.query_id] = deadline
            lane.count_in(ref)
            lane.queue.append(ref)
            self._wake.set()

    def is_behind(self, ref: _TaskRef) -> bool:
        """Whether the host of a task takes tasks more slowly than they come, or not at all."""
        lane = self._lanes.get(self._locate(ref))
        return lane is not None and lane.task_count > _MAX_BATCH

    def skip(self, shard_ids: Iterable[int], address: str | None = None) -> None:
        """Have the tasks of shards derived again when a lane has room, see `wait_skipped`."""
        self._skipped.setdefault(address, set()).update(shard_ids)
        self._skipping.set()

    async def wait_skipped(self) -> set[int]:
        """The shards of tasks for whose lane there is room again; they are forgotten here."""
        while not is_cancelled():
            await self._skipping.wait()
            roomy = [address for address in self._skipped if self._lane_to(address).has_room]
            if roomy:
                return self._take_skipped(roomy)
            await self._wait_moved()
        raise asyncio.CancelledError

    def _take_skipped(self, addresses: Iterable[str | None]) -> set[int]:
        shard_ids = {shard_id for each in addresses for shard_id in self._skipped.pop(each)}
        if not self._skipped:
            self._skipping.clear()
        return shard_ids

    async def wait_room(self) -> None:
        """Return when no lane that moves at all is half full: more would only be skipped."""
        while not is_cancelled():
            since = self._clock.monotonic() - _STALLED_AFTER
            lanes = self._lanes.values()
            if all(lane.has_room or lane.last_taken_at < since for lane in lanes):
                return
            await self._wait_moved()

    async def _wait_moved(self) -> None:
        """Return when something was taken, or after a moment."""
        self._moved.clear()
        await pause(_LOOK_INTERVAL, unless=self._moved)

    async def run(self) -> None:
        """Offer until cancelled."""
        async with asyncio.TaskGroup() as offers:
            while not is_cancelled():
                await self._wait_for_work()
                self._take_due(offers)
                for address, lane in list(self._lanes.items()):
                    self._take_queued(offers, address, lane)
                    if not lane.task_count:
                        del self._lanes[address]
                _WAITING.set(sum(lane.task_count for lane in self._lanes.values()))

    async def _wait_for_work(self) -> None:
        if not self._later:
            await self._wake.wait()
        else:
            wait = max(self._later[0].due - self._clock.monotonic(), 0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
        self._wake.clear()

    def _lane_to(self, address: str | None) -> _Lane:
        lane = self._lanes.get(address)
        if lane is None:
            lane = self._lanes[address] = _Lane()
        return lane

    def _take_queued(self, offers: asyncio.TaskGroup, address: str | None, lane: _Lane) -> None:
        if lane.queue and self._locate(lane.queue[0]) != address:
            self._reroute(lane)
        while lane.queue and lane.batch_count < _MAX_CONCURRENT_BATCHES:
            self._begin(offers, address, _take_batch(lane.queue), _RETRY_INITIAL_INTERVAL)

    def _reroute(self, lane: _Lane) -> None:
        """The hosts have changed: send what a lane has not sent yet where it belongs now."""
        refs, lane.queue = lane.queue, deque()
        lane.count_out(refs)
        for ref in refs:
            target = self._lane_to(self._locate(ref))
            target.count_in(ref)
            target.queue.append(ref)
        self._wake.set()

    def _take_due(self, offers: asyncio.TaskGroup) -> None:
        now = self._clock.monotonic()
        while self._later and self._later[0].due <= now:
            again = heapq.heappop(self._later)
            address = self._locate(again.refs[0])
            lane = self._lane_to(address)
            if address != again.address:
                self._lanes[again.address].count_out(again.refs)
                for ref in again.refs:
                    lane.count_in(ref)
            if lane.batch_count < _MAX_CONCURRENT_BATCHES:
                self._begin(offers, address, again.refs, again.interval)
            else:
                # Not tried, so no reason to wait longer the next time.
                self._keep(address, again.refs, _RETRY_INITIAL_INTERVAL, again.interval)

    def _begin(
        self,
        offers: asyncio.TaskGroup,
        address: str | None,
        batch: list[_TaskRef],
        interval: float,
    ) -> None:
        self._lanes[address].batch_count += 1
        offers.create_task(self._offer(address, batch, interval))

    async def _offer(self, address: str | None, batch: list[_TaskRef], interval: float) -> None:
        lane = self._lanes[address]
        try:
            async with asyncio.timeout(_OFFER_TIMEOUT):
                await self._matching.add_tasks(batch)
        except (UnavailableError, TimeoutError) as error:
            _log.warning("matching did not take tasks", count=len(batch), error=str(error))
            self._postpone(address, batch, interval)
        except Exception:  # noqa: BLE001 - logged whole
            # Matching's fault, maybe on another host, must not end this one.
            _log.exception("matching did not take tasks", count=len(batch))
            self._postpone(address, batch, interval)
        else:
            _OFFERED.inc(len(batch))
            lane.count_out(batch)
            for ref in batch:
                self._query_deadlines.pop(ref.query_id, None)
            lane.last_taken_at = self._clock.monotonic()
            self._moved.set()
        finally:
            lane.batch_count -= 1
            self._wake.set()

    def _postpone(self, address: str | None, batch: list[_TaskRef], interval: float) -> None:
        _FAILED.inc(len(batch))
        at = self._clock.monotonic()
        by_queue: dict[tuple[str, str, int], list[_TaskRef]] = {}
        for ref in batch:
            if ref.query_id and self._query_deadlines.get(ref.query_id, inf) <= at:
                self._query_deadlines.pop(ref.query_id, None)
                self._lanes[address].count_out([ref])
                continue
            key = (ref.namespace_id, ref.task_queue, ref.task_queue_type)
            by_queue.setdefault(key, []).append(ref)
        for refs in by_queue.values():
            self._push(address, refs, interval)

    def _push(self, address: str | None, refs: list[_TaskRef], interval: float) -> None:
        """Try again after the interval; the next one is longer."""
        self._keep(address, refs, interval, min(interval * 2, _RETRY_MAXIMUM_INTERVAL))

    def _keep(
        self, address: str | None, refs: list[_TaskRef], wait: float, interval: float
    ) -> None:
        due = self._clock.monotonic() + wait
        heapq.heappush(self._later, _Postponed(due, next(self._tiebreak), interval, address, refs))


def _take_batch(queue: deque[_TaskRef]) -> list[_TaskRef]:
    """The first tasks of a queue, as many as go in one call: at least one."""
    batch: list[_TaskRef] = []
    byte_count = 0
    while queue and len(batch) < _MAX_BATCH:
        byte_count += queue[0].ByteSize()
        if batch and byte_count > _MAX_BATCH_BYTES:
            break
        batch.append(queue.popleft())
    return batch
