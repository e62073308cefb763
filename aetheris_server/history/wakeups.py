"""What time brings to runs: each is looked at when one of its deadlines has come.

A run in memory is looked at where it is; another is loaded. Deadlines that must survive are in the
executions rows, from which `cluster` schedules those that come near.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import ShardNotOwnedError, UnavailableError, WorkflowNotFoundError
from aetheris_server.history.cache import RunCache
from aetheris_server.history.dispatch import Dispatcher
from aetheris_server.history.indexing import rewrite_wake_time
from aetheris_server.history.run import LoadedRun, Transition
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.deadlines import decide_due, next_deadline
from aetheris_server.history.state.obligations import due_retries
from aetheris_server.history.state.run import RunKey
from aetheris_server.history.timers import Timers
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_FAILED = counter("failed_wake_ups", "Runs that could not be looked at because of a fault.")

_MAX_CONCURRENT_LOADS = 32
_LOAD_TIMEOUT = 30.0
_RETRY_INTERVAL = timedelta(seconds=1)

DUE_HORIZON = timedelta(seconds=60)
"""How far ahead the rows of runs that are not in memory are looked at, at least."""


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
        self._timers = Timers(clock, self._on_due, self._is_needed)
        self._to_load: asyncio.Queue[RunKey] = asyncio.Queue()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._timers.run())
            for _ in range(_MAX_CONCURRENT_LOADS):
                group.create_task(self._load_due())

    def schedule(self, deadline: datetime, key: RunKey) -> None:
        """Look at a run that need not be in memory at, or soon after, a deadline."""
        self._timers.schedule(deadline, key)

    def arm(self, run: LoadedRun, deadline: datetime | None) -> None:
        """See to it that a run in memory is looked at when a deadline comes."""
        if deadline is not None and (run.armed_time is None or deadline < run.armed_time):
            run.armed_time = deadline
            self._timers.schedule(deadline, run.key)

    def _is_needed(self, key: RunKey, deadline: datetime) -> bool:
        run = self._cache.peek(key.run_id)
        if run is None:
            # Its row has it, and is looked at before the deadline comes.
            return deadline <= self._clock.now() + DUE_HORIZON
        return run.armed_time is None or run.armed_time >= deadline

    def _on_due(self, key: RunKey, deadline: datetime) -> None:
        run = self._cache.find(key.run_id)
        if run is None:
            self._to_load.put_nowait(key)
        elif run.armed_time is None or run.armed_time <= deadline:
            self._look_at(run)

    def _look_at(self, run: LoadedRun) -> None:
        """Do all that is due for a run."""
        shard = self._shards.get(run.shard_id)
        now, last_due_time = self._clock.now(), run.last_due_time
        # Whatever goes wrong below, the run is looked at again soon.
        run.armed_time = None
        self.arm(run, now + _RETRY_INTERVAL)
        if shard is None:
            return
        record = decide_due(run.state, run.inflight, now)
        run.last_due_time = now
        refs = []
        if record is not None:
            try:
                refs = self._commit(run, record).refs
            except UnavailableError as error:
                _log.warning("what is due must wait", run_id=run.key.run_id, error=str(error))
                run.last_due_time = last_due_time
                return
        known = {(ref.scheduled_event_id, ref.attempt) for ref in refs}
        # The clock may have stepped back: what was due before may be due again.
        looked_at = min(last_due_time, now)
        retries = due_retries(run.state, run.inflight, looked_at, now)
        # They are on disk already. Those that the record has brought are offered with it.
        self._dispatcher.offer(
            ref for ref in retries if (ref.scheduled_event_id, ref.attempt) not in known
        )
        rewrite_wake_time(shard, run)
        run.armed_time = None
        self.arm(run, next_deadline(run.state, run.inflight, now))

    async def _load_due(self) -> None:
        """Load the runs that are due and not in memory."""
        while True:
            key = await self._to_load.get()
            try:
                async with asyncio.timeout(_LOAD_TIMEOUT):
                    run = await self._load(key)
                self._look_at(run)
            except ShardNotOwnedError as error:
                # Another host's, unless only the lease has run out, which is renewed in a moment.
                if error.shard_id in self._shards:
                    self.schedule(self._clock.now() + _RETRY_INTERVAL, key)
            except WorkflowNotFoundError:
                _log.error("a run that is due is not in the log", run_id=key.run_id)
            except (UnavailableError, TimeoutError) as error:
                _log.warning("a run that is due cannot be loaded", error=str(error))
                self.schedule(self._clock.now() + _RETRY_INTERVAL, key)
            except Exception:  # noqa: BLE001 - logged whole
                # One run at fault must not keep the others from being woken.
                _log.exception("a run that is due could not be woken", run_id=key.run_id)
                _FAILED.inc()
