"""What time brings to runs: each is looked at when one of its deadlines has come, and only then.

    kind       clock           whose
    durable    both            runs in memory; others that are due soon, see `schedule`
    in flight  for intervals   runs of which a worker has something, or may have had
    again      for intervals   runs that could not be looked at

A durable deadline is a wall-clock time that is waited for by the clock for intervals; a step of the
wall clock forwards brings it nearer, one backwards does not put it off. See `run_time`.

A run has at most one deadline of a kind. One that closes has none, so it is neither looked at nor
loaded any more; one that leaves memory keeps what its executions row does not cover.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import (
    RunSetAsideError,
    RunUnreadableError,
    ShardNotOwnedError,
    UnavailableError,
    WorkflowNotFoundError,
)
from aetheris_server.history.dispatch import Dispatcher
from aetheris_server.history.engine.cache import RunCache
from aetheris_server.history.engine.rows import rewrite_wake_time
from aetheris_server.history.engine.timers import Deadlines, DurableDeadlines
from aetheris_server.history.run import LoadedRun, Transition
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.deadlines import (
    decide_due,
    next_deadline,
    next_inflight_deadline,
)
from aetheris_server.history.state.obligations import take_due_retries
from aetheris_server.history.state.run import RunKey
from aetheris_server.loops import is_cancelled, run_loops
from aetheris_server.telemetry import counter, gauge, get_logger

_log = get_logger(__name__)

_SCHEDULED = gauge("scheduled_deadlines", "Runs in memory or due soon that have a deadline.")
_LOOKS = counter("run_looks", "Runs looked at because a deadline had come.")
_LOADS = counter("due_run_loads", "Runs loaded because a deadline had come.")
_FAILED = counter("failed_wake_ups", "Runs that could not be looked at because of a fault.")

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
"""How far ahead the rows of runs that are not in memory are looked at, at least."""


class _Keys(asyncio.Queue[RunKey]):
    """A queue in which each run waits once: those that are due are scanned for again and again."""

    def _init(self, maxsize: int) -> None:
        self._waiting: OrderedDict[RunKey, None] = OrderedDict()

    def _put(self, item: RunKey) -> None:
        self._waiting[item] = None

    def _get(self) -> RunKey:
        return self._waiting.popitem(last=False)[0]

    def qsize(self) -> int:
        return len(self._waiting)

    def empty(self) -> bool:
        return not self._waiting


class WakeUps:
    """Looks at runs when they are due. `run` does so until cancelled."""

    def __init__(
        self,
        clock: Clock,
        cache: RunCache,
        shards: Mapping[int, Shard],
        dispatcher: Dispatcher,
        load: Callable[[RunKey], Awaitable[LoadedRun]],
        commit: Callable[[LoadedRun, log_pb2.LogRecord], Transition],
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
        # Of runs that are due and have not been looked at: the durable deadline that has come.
        self._come: dict[str, datetime] = {}
        self._wall_lead = clock.now().timestamp() - clock.monotonic()
        self._to_load = _Keys()
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Look at runs and load them until cancelled."""
        await run_loops(self._watch(), *(self._load_due() for _ in range(_MAX_CONCURRENT_LOADS)))

    def __len__(self) -> int:
        """How many deadlines there are."""
        return len(self._durable) + len(self._inflight) + len(self._again)

    # What is to be looked at, and when.

    def schedule(self, key: RunKey, deadline: datetime) -> None:
        """Look at a run that is not in memory at, or soon after, a durable deadline."""
        now, at = self._clock.now(), self._clock.monotonic()
        self._put_durable(key, deadline, at + (deadline - now).total_seconds())

    def _schedule_durable(self, run: LoadedRun, deadline: datetime | None) -> None:
        if deadline is not None:
            self._put_durable(run.key, deadline, run.time.to_monotonic(deadline))

    def _put_durable(self, key: RunKey, deadline: datetime, moment: float) -> None:
        if self._durable.put(key, deadline, moment):
            self._wake.set()

    def schedule_inflight(self, run: LoadedRun, deadline: float | None) -> None:
        """Look at a run in memory when a deadline comes of what a worker has of it."""
        if deadline is not None and self._inflight.put(run.key, deadline):
            self._wake.set()

    def follow(self, run: LoadedRun, deadline: datetime | None) -> None:
        """Take note of a run's newest record, which brought the durable deadline, if any."""
        if not run.state.is_open:
            self._forget(run.key.run_id)
            return
        self._schedule_durable(run, deadline)
        if run.inflight.is_idle and run.inflight.taken_at is None:
            self._inflight.discard(run.key.run_id)

    def set_time(self, run: LoadedRun) -> None:
        """Have the time of a run that is being loaded go on from where its deadline was counted."""
        self._reach_come(run)
        found = self._durable.find(run.key.run_id)
        if found is not None:
            deadline, moment = found
            left = max(moment - self._clock.monotonic(), 0.0)
            run.time.reach(deadline - timedelta(seconds=left), self._clock)

    def _reach_come(self, run: LoadedRun) -> None:
        come = self._come.pop(run.key.run_id, None)
        if come is not None:
            run.time.reach(come, self._clock)

    def admit(self, run: LoadedRun) -> None:
        """Take note of a run that has just been loaded."""
        now, at = run.time.read(self._clock), self._clock.monotonic()
        self._schedule_durable(run, next_deadline(run.state, run.inflight, now))
        self.schedule_inflight(run, next_inflight_deadline(run.state, run.inflight, at))

    def note_given_back(self, run: LoadedRun) -> None:
        """Take note that a worker does not have a task of a run after all: the time in which it
        must be started counts again, and may be over.
        """
        now = run.time.read(self._clock)
        self._schedule_durable(run, next_deadline(run.state, run.inflight, now))

    def release(self, run: LoadedRun) -> None:
        """Take note of a run that has left memory: keep what would else be missed."""
        if run.inflight.taken_at is None:
            self._inflight.discard(run.key.run_id)
        found = self._durable.find(run.key.run_id)
        if found is None or run.wake_time is None:
            return
        now, (deadline, _) = run.time.read(self._clock), found
        if deadline <= now + DUE_HORIZON or run.wake_time > deadline or run.time.lead:
            # Soon; or its row does not tell, or tells the wall clock's and not how far it is ahead.
            return
        self._durable.discard(run.key.run_id)

    def _forget(self, run_id: str) -> None:
        self._durable.discard(run_id)
        self._inflight.discard(run_id)
        self._again.discard(run_id)
        self._come.pop(run_id, None)

    def _schedule_again(self, key: RunKey, interval: float) -> None:
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
        """Look at some of the runs that are due, or have them loaded; how many it was."""
        self._notice_step()
        for count in range(_MAX_LOOKS_AT_ONCE):
            key = self._pop_due()
            if key is None:
                return count
            run = self._cache.find(key.run_id)
            if run is None:
                self._to_load.put_nowait(key)
            else:
                self._try_look_at(run)
        return _MAX_LOOKS_AT_ONCE

    def _notice_step(self) -> None:
        now = self._clock.now()
        lead = now.timestamp() - self._clock.monotonic()
        if lead > self._wall_lead + _LEAST_STEP:
            self._durable.step_forward(now, self._clock.monotonic())
        elif lead >= self._wall_lead:
            return
        self._wall_lead = lead

    def _pop_due(self) -> RunKey | None:
        at = self._clock.monotonic()
        durable = self._durable.pop_due(at + _ROUNDING)
        if durable is None:
            return self._inflight.pop_due(at) or self._again.pop_due(at)
        key, deadline = durable
        self._come[key.run_id] = deadline
        return key

    def _try_look_at(self, run: LoadedRun) -> None:
        try:
            self._look_at(run)
        except UnavailableError as error:
            _log.warning("what is due must wait", run_id=run.key.run_id, error=str(error))
            self._schedule_again(run.key, _RETRY_INTERVAL)
        except Exception:  # noqa: BLE001 - logged whole
            # One run at fault must not keep the others from being looked at.
            _log.exception("a run could not be looked at", run_id=run.key.run_id)
            _FAILED.inc()
            self._schedule_again(run.key, _FAULT_INTERVAL)

    def _look_at(self, run: LoadedRun) -> None:
        """Do all that is due for a run.

        Raises:
            UnavailableError: The disk is too far behind, or the shard is being taken anew.
        """
        shard = self._shards.get(run.shard_id)
        if shard is None:
            raise ShardNotOwnedError(run.shard_id)
        _LOOKS.inc()
        self._reach_come(run)
        now, at = run.time.read(self._clock), self._clock.monotonic()
        record = decide_due(run.state, run.inflight, now, at)
        if record is not None:
            self._commit(run, record)
        # They are on disk already. Those that the record has brought are offered with it.
        self._dispatcher.offer(take_due_retries(run.state, run.inflight, now))
        rewrite_wake_time(shard, run, now)
        self._rearm(run, now, at)

    def _rearm(self, run: LoadedRun, now: datetime, at: float) -> None:
        self._forget(run.key.run_id)
        self._schedule_durable(run, next_deadline(run.state, run.inflight, now))
        self.schedule_inflight(run, next_inflight_deadline(run.state, run.inflight, at))

    async def _load_due(self) -> None:
        """Load the runs that are due and not in memory."""
        while not is_cancelled():
            key = await self._to_load.get()
            _LOADS.inc()
            try:
                async with asyncio.timeout(_LOAD_TIMEOUT):
                    run = await self._load(key)
            except ShardNotOwnedError as error:
                # Another host's, unless only the lease has run out, which is renewed in a moment.
                if error.shard_id in self._shards:
                    self._schedule_again(key, _RETRY_INTERVAL)
                else:
                    self._forget(key.run_id)
            except WorkflowNotFoundError:
                self._forget(key.run_id)
                _log.error("a run that is due is not in the log", run_id=key.run_id)
            except (RunUnreadableError, RunSetAsideError):
                # The engine has said so.
                self._schedule_again(key, _FAULT_INTERVAL)
            except (UnavailableError, TimeoutError) as error:
                _log.warning("a run that is due cannot be loaded", error=str(error))
                self._schedule_again(key, _RETRY_INTERVAL)
            except Exception:  # noqa: BLE001 - logged whole
                # One run at fault must not keep the others from being woken.
                _log.exception("a run that is due could not be loaded", run_id=key.run_id)
                _FAILED.inc()
                self._schedule_again(key, _FAULT_INTERVAL)
            else:
                self._try_look_at(run)
