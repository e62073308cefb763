"""Finding runs: in memory, or read back from the log, each once at a time."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import (
    RunUnreadableError,
    ShardNotOwnedError,
    UnavailableError,
    WorkflowNotFoundError,
)
from aetheris_server.history.engine.cache import RunCache
from aetheris_server.history.engine.loader import load_run_state, load_run_states
from aetheris_server.history.engine.newest_runs import NewestRuns
from aetheris_server.history.engine.refusals import Refusals
from aetheris_server.history.engine.rows import check_key
from aetheris_server.history.engine.shard_table import ShardTable
from aetheris_server.history.engine.wakeups import WakeUps
from aetheris_server.history.run import LoadedRun, Transition
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.machines.workflow_task.ending import decide_flush
from aetheris_server.history.state.observe import restore_inflight
from aetheris_server.history.state.run import RunKey
from aetheris_server.storage.database import Database
from aetheris_server.storage.executions import NewestRun
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_UNREADABLE = counter("unreadable_runs", "Loads of runs that were refused for what is stored.")


class RunFinder:
    """Finds the runs of one engine."""

    def __init__(
        self,
        clock: Clock,
        db: Database,
        table: ShardTable,
        cache: RunCache,
        newest: NewestRuns,
        refusals: Refusals,
        wakeups: WakeUps,
        commit: Callable[[LoadedRun, log_pb2.LogRecord], Transition],
    ) -> None:
        """Args:
        clock: Of this host.
        db: Where the log is.
        table: The shards.
        cache: Where runs are put that have been loaded.
        newest: Which run a workflow id means.
        refusals: The runs that are not loaded for a while.
        wakeups: Told of each run that has been loaded.
        commit: Of the engine: what was put off when a worker had the run's task may be due.
        """
        self._clock = clock
        self._db = db
        self._table = table
        self._cache = cache
        self._newest = newest
        self._refusals = refusals
        self._wakeups = wakeups
        self._commit = commit
        # Done when whoever loads a run has it, or has failed.
        self._loading: dict[str, asyncio.Future[None]] = {}

    async def load_newest(self, namespace_id: str, workflow_id: str) -> NewestRun | None:
        """The newest run of a workflow id, open or closed; None if there never was one.

        Raises:
            InvalidArgumentError: There can be no such workflow id.
            ShardNotOwnedError: This host does not have the shard.
            StorageUnavailableError: Postgres does not answer.
        """
        check_key(namespace_id, workflow_id)
        shard = self._table.find(namespace_id, workflow_id)
        newest = await self._newest.load((shard.shard_id, namespace_id, workflow_id))
        if not self._table.is_served(shard):
            raise ShardNotOwnedError(shard.shard_id)
        return newest

    async def load(self, namespace_id: str, workflow_id: str, run_id: str = "") -> LoadedRun:
        """A run, from memory or from the log; the newest of the workflow id without a run id.

        What follows its return without an await works on the run's latest state.

        Raises:
            WorkflowNotFoundError: There is no such run.
            RunUnreadableError: What is stored of it cannot be used by this program.
            RunSetAsideError: A fault struck the run a moment ago.
            ShardNotOwnedError: This host does not have the shard.
            StorageUnavailableError: Postgres does not answer.
        """
        while True:
            shard = self._table.find(namespace_id, workflow_id)
            wanted = run_id
            if not wanted:
                newest = await self.load_newest(namespace_id, workflow_id)
                if newest is None:
                    raise WorkflowNotFoundError(workflow_id)
                wanted = newest.run_id
            run = self._cache.find(wanted)
            if run is None:
                await self._load_once(shard, namespace_id, workflow_id, wanted)
                continue
            if run.key.namespace_id != namespace_id or run.key.workflow_id != workflow_id:
                raise WorkflowNotFoundError(workflow_id, run_id)
            return run

    async def preload(self, keys: Sequence[RunKey]) -> None:
        """Take runs into the cache in few statements.

        One that is not there, or at fault, or of a shard that this host does not have, is left out:
        `load` says why.

        Raises:
            UnavailableError: Postgres does not answer, or the disk is too far behind.
        """
        wanted = {key.run_id: key for key in keys if self._can_be_loaded(key)}
        if not wanted:
            return
        shards = {
            run_id: self._table.find(key.namespace_id, key.workflow_id)
            for run_id, key in wanted.items()
        }
        loop = asyncio.get_running_loop()
        self._loading.update({run_id: loop.create_future() for run_id in wanted})
        try:
            pairs = [(shards[run_id].shard_id, key) for run_id, key in wanted.items()]
            async with aclosing(load_run_states(self._db, pairs)) as parts:
                async for runs in parts:
                    for run in runs:
                        if self._table.is_served(shards[run.key.run_id]):
                            self._try_admit(run)
        finally:
            for run_id in wanted:
                self._loading.pop(run_id).set_result(None)

    def _can_be_loaded(self, key: RunKey) -> bool:
        """Whether a run is not in memory, nobody is loading it, and nothing is against it."""
        return (
            self._table.try_find(key.namespace_id, key.workflow_id) is not None
            and self._cache.peek(key.run_id) is None
            and key.run_id not in self._loading
            and not self._refusals.is_refused(key.run_id)
        )

    def _try_admit(self, run: LoadedRun) -> None:
        try:
            self._admit(run)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - logged whole
            # One run at fault must not keep the others from being loaded.
            _log.exception("a run cannot be taken into memory", run_id=run.key.run_id)
            self._cache.drop(run)

    async def _load_once(
        self, shard: Shard, namespace_id: str, workflow_id: str, run_id: str
    ) -> None:
        """Take a run into the cache, or wait for whoever is doing so."""
        loading = self._loading.get(run_id)
        if loading is not None:
            await asyncio.wait([loading])
            return
        loading = self._loading[run_id] = asyncio.get_running_loop().create_future()
        try:
            self._refusals.check(run_id)
            run = await load_run_state(self._db, shard.shard_id, namespace_id, run_id)
            if run.key.workflow_id != workflow_id:
                raise WorkflowNotFoundError(workflow_id, run_id)
            if self._table.is_served(shard):
                self._admit(run)
        except WorkflowNotFoundError:
            raise WorkflowNotFoundError(workflow_id, run_id) from None
        except RunUnreadableError as error:
            self._refuse(run_id, error)
            raise
        finally:
            del self._loading[run_id]
            loading.set_result(None)

    def _refuse(self, run_id: str, error: RunUnreadableError) -> None:
        """Note, once in a while, that a run cannot be read, and do not try again at once."""
        if not self._refusals.is_refused(run_id):
            _log.error("a run is refused for what is stored of it", error=str(error))
            _UNREADABLE.inc()
            self._refusals.add(run_id, error)

    def _admit(self, run: LoadedRun) -> None:
        self._wakeups.set_time(run)
        now = run.time.read(self._clock)
        taken_at = self._table.of_run(run).taken_at
        restore_inflight(run.state, run.inflight, now, self._clock.monotonic(), taken_at)
        self._cache.put(run)
        self._wakeups.admit(run)
        record = decide_flush(run.state, run.inflight, now)
        if record is not None:
            try:
                self._commit(run, record)
            except UnavailableError:
                self._cache.drop(run)
                raise
