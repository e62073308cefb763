"""The lanes in which obligations of one kind go to the hosts that take them.

Nothing here is durable. What is lost with the process is derived again from the state, and so is
what finds no room: the aggregates of its shard are asked again what they owe, once there is some.

Each host that something goes to has a lane of its own, so that one that is dead or slow holds up
nobody else. Within a lane, what a batch left undone is sent again later, group by group. Nothing
waits in the place of what can go.
"""

import asyncio
import heapq
import itertools
from collections.abc import Collection, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from aetheris_server.clock import Clock
from aetheris_server.errors import UnavailableError
from aetheris_server.history.obligations.carrier import Carrier
from aetheris_server.history.obligations.lane import MAX_BATCH, MAX_BATCH_BYTES, Lane
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_SENT = counter("dispatch_offered", "Obligations that were taken.", ["kind"])
_FAILED = counter("dispatch_failed", "Obligations not taken yet; they are offered again.", ["kind"])
_SKIPPED = counter("dispatch_skipped", "Obligations without room; derived again.", ["kind"])
_WAITING = gauge("dispatch_queue_length", "Obligations that wait, or are on their way.", ["kind"])

_MAX_CONCURRENT_BATCHES = 16
_SEND_TIMEOUT = 10.0
_RETRY_INITIAL_INTERVAL = 0.1
_RETRY_MAXIMUM_INTERVAL = 5.0
# A lane that has taken nothing for so long is not waited for.
_STALLED_AFTER = 2.0
_LOOK_INTERVAL = 0.5

T = TypeVar("T", bound=Message)


@dataclass(slots=True, order=True)
class _Postponed(Generic[T]):
    """Some of one group that wait for their next try; `interval` is what they wait after it."""

    due: float
    tiebreak: int
    interval: float = field(compare=False)
    address: str | None = field(compare=False)
    batch: list[T] = field(compare=False)
    byte_count: int = field(compare=False)

    def try_take_along(self, other: "_Postponed[T]") -> bool:
        """Have others of the group sent along; False if they do not all go in one call."""
        count, byte_count = len(self.batch) + len(other.batch), self.byte_count + other.byte_count
        if count > MAX_BATCH or byte_count > MAX_BATCH_BYTES:
            return False
        self.batch += other.batch
        self.byte_count = byte_count
        self.interval = max(self.interval, other.interval)
        return True


class Lanes(Generic[T]):
    """Sends obligations of one kind, several batches per lane at a time."""

    def __init__(self, carrier: Carrier[T], clock: Clock) -> None:
        """Args:
        carrier: Knows the kind.
        clock: Of this host.
        """
        self._carrier = carrier
        self._clock = clock
        self._lanes: dict[str | None, Lane[T]] = {}
        self._later: list[_Postponed[T]] = []
        self._tiebreak = itertools.count()
        self._skipped: dict[str | None, set[int]] = {}
        self._wake = asyncio.Event()
        self._skipping = asyncio.Event()
        self._moved = asyncio.Event()
        self._sent = _SENT.labels(carrier.kind)
        self._failed = _FAILED.labels(carrier.kind)
        self._without_room = _SKIPPED.labels(carrier.kind)
        self._waiting = _WAITING.labels(carrier.kind)

    def offer(self, owed: Iterable[T]) -> None:
        """Send soon, or, where a lane is full, some time after it has room again.

        Those of one lane find room together or not at all, so that what an aggregate owes can be
        offered whole however much it is. What cannot be derived always finds room.
        """
        carrier = self._carrier
        full: dict[str | None, bool] = {}
        for each in owed:
            address = carrier.locate(each)
            lane = self._lane_to(address)
            if full.setdefault(address, lane.is_full) and carrier.is_derived(each):
                self._without_room.inc()
                self.skip([carrier.shard_of(each)], address)
                continue
            if carrier.admit(each):
                lane.add(each)
                self._wake.set()

    def is_behind(self, owed: T) -> bool:
        """Whether the host of one takes them more slowly than they come, or not at all."""
        lane = self._lanes.get(self._carrier.locate(owed))
        return lane is not None and lane.is_behind

    def skip(self, shard_ids: Iterable[int], address: str | None = None) -> None:
        """Have what shards owe derived again when a lane has room, see `wait_skipped`."""
        self._skipped.setdefault(address, set()).update(shard_ids)
        self._skipping.set()

    async def wait_skipped(self) -> set[int]:
        """The shards of what found no room, where a lane has some again; forgotten here."""
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
        """Send until cancelled."""
        async with asyncio.TaskGroup() as sends:
            while not is_cancelled():
                await self._wait_for_work()
                self._take_due(sends)
                for address, lane in list(self._lanes.items()):
                    self._take_queued(sends, address, lane)
                    if not lane.count:
                        del self._lanes[address]
                self._waiting.set(sum(lane.count for lane in self._lanes.values()))

    async def _wait_for_work(self) -> None:
        if not self._later:
            await self._wake.wait()
        else:
            wait = max(self._later[0].due - self._clock.monotonic(), 0.0)
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
        self._wake.clear()

    def _lane_to(self, address: str | None) -> Lane[T]:
        lane = self._lanes.get(address)
        if lane is None:
            lane = self._lanes[address] = Lane()
        return lane

    def _take_queued(self, sends: asyncio.TaskGroup, address: str | None, lane: Lane[T]) -> None:
        if lane.queue and self._carrier.locate(lane.queue[0]) != address:
            self._reroute(lane)
        while lane.queue and lane.batch_count < _MAX_CONCURRENT_BATCHES:
            self._begin(sends, address, lane.take_batch(), _RETRY_INITIAL_INTERVAL)

    def _reroute(self, lane: Lane[T]) -> None:
        """The hosts have changed: send what a lane has not sent yet where it belongs now."""
        for owed in lane.take_all():
            self._lane_to(self._carrier.locate(owed)).add(owed)
        self._wake.set()

    def _take_due(self, sends: asyncio.TaskGroup) -> None:
        for again in self._pop_due():
            address = self._carrier.locate(again.batch[0])
            lane = self._lane_to(address)
            if address != again.address:
                self._lanes[again.address].count_out(again.batch)
                for owed in again.batch:
                    lane.count_in(owed)
            untried = again.batch
            if lane.batch_count < _MAX_CONCURRENT_BATCHES:
                self._begin(sends, address, untried[: lane.batch_limit], again.interval)
                untried = untried[lane.batch_limit :]
            if untried:
                # No reason to wait longer the next time.
                self._keep(address, untried, _RETRY_INITIAL_INTERVAL, again.interval)

    def _pop_due(self) -> list[_Postponed[T]]:
        """What is due, those of one group together: else an outage would leave a slow host with as
        many calls as the batches that it did not take had groups.
        """
        now = self._clock.monotonic()
        due: list[_Postponed[T]] = []
        newest: dict[Hashable, _Postponed[T]] = {}
        while self._later and self._later[0].due <= now:
            again = heapq.heappop(self._later)
            group = (again.address, self._carrier.group_of(again.batch[0]))
            before = newest.get(group)
            if before is None or not before.try_take_along(again):
                newest[group] = again
                due.append(again)
        return due

    def _begin(
        self, sends: asyncio.TaskGroup, address: str | None, batch: list[T], interval: float
    ) -> None:
        self._lanes[address].batch_count += 1
        sends.create_task(self._send(address, batch, interval))

    async def _send(self, address: str | None, batch: list[T], interval: float) -> None:
        lane, kind = self._lanes[address], self._carrier.kind
        left: Collection[T] = batch
        try:
            async with asyncio.timeout(_SEND_TIMEOUT):
                left = await self._carrier.send(batch)
        except (UnavailableError, TimeoutError) as error:
            _log.warning("a host did not take what it is owed", kind=kind, error=str(error))
        except Exception:  # noqa: BLE001 - logged whole
            # A fault of another host must not end this one.
            _log.exception("a host did not take what it is owed", kind=kind)
        finally:
            lane.batch_count -= 1
            self._wake.set()
        self._settle(address, batch, left, interval)

    def _settle(
        self, address: str | None, batch: list[T], left: Collection[T], interval: float
    ) -> None:
        """Take out what is done, and try again with what is left."""
        again = {id(owed) for owed in left}
        done = [owed for owed in batch if id(owed) not in again] if again else batch
        if done:
            self._sent.inc(len(done))
            self._drop(address, done)
            self._lanes[address].note_taken(self._clock.monotonic())
            self._moved.set()
        else:
            self._lanes[address].note_left(len(batch))
        if left:
            self._failed.inc(len(left))
            self._postpone(address, left, interval)

    def _drop(self, address: str | None, done: Sequence[T]) -> None:
        self._lanes[address].count_out(done)
        for owed in done:
            self._carrier.release(owed)

    def _postpone(self, address: str | None, left: Collection[T], interval: float) -> None:
        over: list[T] = []
        groups: dict[Hashable, list[T]] = {}
        for owed in left:
            if self._carrier.is_over(owed):
                over.append(owed)
            else:
                groups.setdefault(self._carrier.group_of(owed), []).append(owed)
        self._drop(address, over)
        for group in groups.values():
            self._push(address, group, interval)

    def _push(self, address: str | None, batch: list[T], interval: float) -> None:
        """Try again after the interval; the next one is longer."""
        self._keep(address, batch, interval, min(interval * 2, _RETRY_MAXIMUM_INTERVAL))

    def _keep(self, address: str | None, batch: list[T], wait: float, interval: float) -> None:
        due = self._clock.monotonic() + wait
        byte_count = sum(owed.ByteSize() for owed in batch)
        again = _Postponed(due, next(self._tiebreak), interval, address, batch, byte_count)
        heapq.heappush(self._later, again)
