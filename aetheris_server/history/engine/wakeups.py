"""What time brings to aggregates: each is looked at when one of its deadlines has come, and only
then.

    kind       clock           whose
    durable    both            aggregates in memory; others that are due soon, see `schedule`
    in flight  for intervals   aggregates of which a worker, say, has something, or may have had
    again      for intervals   aggregates that could not be looked at

A durable deadline is a wall-clock time that is waited for by the clock for intervals; a step of the
wall clock forwards brings it nearer, one backwards does not put it off. See `own_time`.

An aggregate has at most one deadline of a kind. One that closes has none, so it is neither looked
at nor loaded any more; one that leaves memory keeps what its row does not cover.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import (
    AggregateNotFoundError,
    RunSetAsideError,
    RunUnreadableError,
    ShardNotOwnedError,
    UnavailableError,
)
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.transition import Transition
from aetheris_server.history.engine.cache import AggregateCache
from aetheris_server.history.engine.rows import rewrite_wake_time
from aetheris_server.history.engine.timers import Deadlines, DurableDeadlines
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.shard import Shard
from aetheris_server.loops import is_cancelled, run_loops
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_SCHEDULED = gauge("scheduled_deadlines", "Aggregates in memory or due soon that have a deadline.")
_LOOKS = counter("run_looks", "Aggregates looked at because a deadline had come.")
_LOADS = counter("due_run_loads", "Aggregates loaded because a deadline had come.")
_FAILED = counter("failed_wake_ups", "Aggregates that could not be looked at because of a fault.")

_MAX_CONCURRENT_LOADS = 32
_LOAD_TIMEOUT = 30.0
_RETRY_INTERVAL = 1.0
_FAULT_INTERVAL = 30.0
# asyncio waits by the clock for intervals: a step of the wall clock is noticed this late.
_LONGEST_WAIT = 1.0
# Two clocks cannot be read at once: what they seem to differ by less is no step.
_LEAST_STEP = 0.05
# Wall-clock times have microseconds: less than half of one is what floats are out by.
_ROUNDING = 0.5e-6
# What else the event loop has to do comes in between.
_MAX_LOOKS_AT_ONCE = 200

DUE_HORIZON = timedelta(seconds=60)
"""How far ahead the rows of aggregates that are not in memory are looked at, at least."""


class _Keys(asyncio.Queue[AggregateKey]):
    """A queue in which each aggregate waits once: the due ones are scanned for again and again."""

    def _init(self, maxsize: int) -> None:
        self._waiting: OrderedDict[AggregateKey, None] = OrderedDict()

    def _put(self, item: AggregateKey) -> None:
        self._waiting[item] = None

    def _get(self) -> AggregateKey:
        return self._waiting.popitem(last=False)[0]

    def qsize(self) -> int:
        return len(self._waiting)

    def empty(self) -> bool:
        return not self._waiting


class WakeUps:
    """Looks at aggregates when they are due. `run` does so until cancelled."""

    def __init__(
        self,
        clock: Clock,
        cache: AggregateCache,
        shards: Mapping[int, Shard],
        dispatcher: Dispatcher,
        load: Callable[[AggregateKey], Awaitable[Aggregate]],
        commit: Callable[[Aggregate, log_pb2.LogRecord], Transition],
    ) -> None:
        self._clock = clock
        self._cache = cache
        self._shards = shards
        self._dispatcher = dispatcher
        self._load = load
        self._commit = commit
        self._durable = DurableDeadlines()
        self._inflight = Deadlines()
        self._again = Deadlines()
        # Of those that are due and have not been looked at: the durable deadline that has come.
        self._come: dict[str, datetime] = {}
        self._wall_lead = clock.now().timestamp() - clock.monotonic()
        self._to_load = _Keys()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Look at aggregates and load them until cancelled."""
        await run_loops(self._watch(), *(self._load_due() for _ in range(_MAX_CONCURRENT_LOADS)))

    def __len__(self) -> int:
        """How many deadlines there are."""
        return len(self._durable) + len(self._inflight) + len(self._again)

    # What is to be looked at, and when.

    def schedule(self, key: AggregateKey, deadline: datetime) -> None:
        """Look at an aggregate that is not in memory at, or soon after, a durable deadline."""
        now, at = self._clock.now(), self._clock.monotonic()
        self._put_durable(key, deadline, at + (deadline - now).total_seconds())

    def _schedule_durable(self, aggregate: Aggregate, deadline: datetime | None) -> None:
        if deadline is not None:
            self._put_durable(aggregate.key, deadline, aggregate.time.to_monotonic(deadline))

    def _put_durable(self, key: AggregateKey, deadline: datetime, moment: float) -> None:
        if self._durable.put(key, deadline, moment):
            self._wake.set()

    def schedule_inflight(self, aggregate: Aggregate, deadline: float | None) -> None:
        """Look at an aggregate in memory when a deadline comes of what is in flight of it."""
        if deadline is not None and self._inflight.put(aggregate.key, deadline):
            self._wake.set()

    def follow(self, aggregate: Aggregate, deadline: datetime | None) -> None:
        """Take note of an aggregate's newest record, which brought the durable deadline, if any."""
        if not aggregate.is_open:
            self._forget(aggregate.key.id)
            return
        self._schedule_durable(aggregate, deadline)
        if aggregate.is_idle and not aggregate.was_elsewhere:
            self._inflight.discard(aggregate.key.id)

    def set_time(self, aggregate: Aggregate) -> None:
        """Have the time of one that is being loaded go on from where its deadline was counted."""
        self._reach_come(aggregate)
        found = self._durable.find(aggregate.key.id)
        if found is not None:
            deadline, moment = found
            left = max(moment - self._clock.monotonic(), 0.0)
            aggregate.time.reach(deadline - timedelta(seconds=left), self._clock)

    def _reach_come(self, aggregate: Aggregate) -> None:
        come = self._come.pop(aggregate.key.id, None)
        if come is not None:
            aggregate.time.reach(come, self._clock)

    def admit(self, aggregate: Aggregate) -> None:
        """Take note of an aggregate that has just been loaded."""
        now, at = aggregate.time.read(self._clock), self._clock.monotonic()
        self._schedule_durable(aggregate, aggregate.next_deadline(now))
        self.schedule_inflight(aggregate, aggregate.next_inflight_deadline(at))

    def note_given_back(self, aggregate: Aggregate) -> None:
        """Take note that what was in flight of an aggregate is not after all: the time in which it
        must be taken counts again, and may be over.
        """
        now = aggregate.time.read(self._clock)
        self._schedule_durable(aggregate, aggregate.next_deadline(now))

    def release(self, aggregate: Aggregate) -> None:
        """Take note of an aggregate that has left memory: keep what would else be missed."""
        if not aggregate.was_elsewhere:
            self._inflight.discard(aggregate.key.id)
        found = self._durable.find(aggregate.key.id)
        if found is None or aggregate.wake_time is None:
            return
        now, (deadline, _) = aggregate.time.read(self._clock), found
        if deadline <= now + DUE_HORIZON or aggregate.wake_time > deadline or aggregate.time.lead:
            # Soon; or its row does not tell, or tells the wall clock's and not how far it is ahead.
            return
        self._durable.discard(aggregate.key.id)

    def _forget(self, id_: str) -> None:
        self._durable.discard(id_)
        self._inflight.discard(id_)
        self._again.discard(id_)
        self._come.pop(id_, None)

    def _schedule_again(self, key: AggregateKey, interval: float) -> None:
        if self._again.put(key, self._clock.monotonic() + interval):
            self._wake.set()

    # Looking.

    async def _watch(self) -> None:
        while not is_cancelled():
            self._wake.clear()
            if self.look_at_due() == _MAX_LOOKS_AT_ONCE:
                await asyncio.sleep(0)
                continue
            _SCHEDULED.set(len(self))
            try:
                async with asyncio.timeout(self._wait()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _wait(self) -> float | None:
        """Seconds until the first deadline, at most those until a step must be noticed."""
        at = self._clock.monotonic()
        firsts = (self._inflight.first(), self._again.first(), self._durable.first())
        waits = [deadline - at for deadline in firsts if deadline is not None]
        if len(self._durable):
            waits.append(_LONGEST_WAIT)
        return max(min(waits), 0.0) if waits else None

    def look_at_due(self) -> int:
        """Look at some of the aggregates that are due, or have them loaded; how many it was."""
        self._notice_step()
        for count in range(_MAX_LOOKS_AT_ONCE):
            key = self._pop_due()
            if key is None:
                return count
            aggregate = self._cache.find(key.id)
            if aggregate is None:
                self._to_load.put_nowait(key)
            else:
                self._try_look_at(aggregate)
        return _MAX_LOOKS_AT_ONCE

    def _notice_step(self) -> None:
        now = self._clock.now()
        lead = now.timestamp() - self._clock.monotonic()
        if lead > self._wall_lead + _LEAST_STEP:
            self._durable.step_forward(now, self._clock.monotonic())
        elif lead >= self._wall_lead:
            return
        self._wall_lead = lead

    def _pop_due(self) -> AggregateKey | None:
        at = self._clock.monotonic()
        durable = self._durable.pop_due(at + _ROUNDING)
        if durable is None:
            return self._inflight.pop_due(at) or self._again.pop_due(at)
        key, deadline = durable
        self._come[key.id] = deadline
        return key

    def _try_look_at(self, aggregate: Aggregate) -> None:
        try:
            self._look_at(aggregate)
        except UnavailableError as error:
            _log.warning(
                "what is due must wait",
                kind=aggregate.key.kind,
                id=aggregate.key.id,
                error=str(error),
            )
            self._schedule_again(aggregate.key, _RETRY_INTERVAL)
        except Exception:  # noqa: BLE001 - logged whole
            # One aggregate at fault must not keep the others from being looked at.
            _log.exception(
                "an aggregate could not be looked at", kind=aggregate.key.kind, id=aggregate.key.id
            )
            _FAILED.inc()
            self._schedule_again(aggregate.key, _FAULT_INTERVAL)

    def _look_at(self, aggregate: Aggregate) -> None:
        """Do all that is due for an aggregate.

        Raises:
            UnavailableError: The disk is too far behind, or the shard is being taken anew.
        """
        shard = self._shards.get(aggregate.shard_id)
        if shard is None:
            raise ShardNotOwnedError(aggregate.shard_id)
        _LOOKS.inc()
        self._reach_come(aggregate)
        now, at = aggregate.time.read(self._clock), self._clock.monotonic()
        record = aggregate.decide_due(now, at)
        if record is not None:
            self._commit(aggregate, record)
        self._dispatcher.offer_behind(aggregate.last_ticket, aggregate.take_due(now))
        rewrite_wake_time(shard, aggregate, now)
        self._rearm(aggregate, now, at)

    def _rearm(self, aggregate: Aggregate, now: datetime, at: float) -> None:
        self._forget(aggregate.key.id)
        self._schedule_durable(aggregate, aggregate.next_deadline(now))
        self.schedule_inflight(aggregate, aggregate.next_inflight_deadline(at))

    async def _load_due(self) -> None:
        """Load the aggregates that are due and not in memory."""
        while not is_cancelled():
            key = await self._to_load.get()
            _LOADS.inc()
            try:
                async with asyncio.timeout(_LOAD_TIMEOUT):
                    aggregate = await self._load(key)
            except ShardNotOwnedError as error:
                # Another host's, unless only the lease has run out, which is renewed in a moment.
                if error.shard_id in self._shards:
                    self._schedule_again(key, _RETRY_INTERVAL)
                else:
                    self._forget(key.id)
            except AggregateNotFoundError:
                self._forget(key.id)
                _log.error("an aggregate that is due is not in the log", kind=key.kind, id=key.id)
            except (RunUnreadableError, RunSetAsideError):
                # The engine has said so.
                self._schedule_again(key, _FAULT_INTERVAL)
            except (UnavailableError, TimeoutError) as error:
                _log.warning("an aggregate that is due cannot be loaded", error=str(error))
                self._schedule_again(key, _RETRY_INTERVAL)
            except Exception:  # noqa: BLE001 - logged whole
                # One aggregate at fault must not keep the others from being woken.
                _log.exception(
                    "an aggregate that is due could not be loaded", kind=key.kind, id=key.id
                )
                _FAILED.inc()
                self._schedule_again(key, _FAULT_INTERVAL)
            else:
                self._try_look_at(aggregate)
