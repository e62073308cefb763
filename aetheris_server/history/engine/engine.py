"""The one write path: load, decide, apply, enqueue, and only then await.

Between the return of `load` and the call of `commit` nothing awaits. So asyncio itself makes a
transition atomic, and there are no locks. State runs ahead of the disk; the ticket that `commit`
returns tells when the disk has caught up, and nothing may leave the process before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.history.dispatch import Dispatcher
from aetheris_server.history.engine.cache import RunCache
from aetheris_server.history.engine.changing import RunChanges
from aetheris_server.history.engine.committer import MAX_QUEUED, Commit, Committer
from aetheris_server.history.engine.finding import RunFinder
from aetheris_server.history.engine.newest_runs import NewestRuns
from aetheris_server.history.engine.refusals import Refusals
from aetheris_server.history.engine.rows import try_snapshot_row
from aetheris_server.history.engine.shard_table import ShardTable
from aetheris_server.history.engine.wakeups import WakeUps
from aetheris_server.history.notices import CancellationNotices
from aetheris_server.history.run import LoadedRun, Transition, WaitingQuery
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.workflow_task.tasks import workflow_ref
from aetheris_server.history.state.obligations import obligations
from aetheris_server.history.state.run import RunKey
from aetheris_server.history.state.times import to_timestamp
from aetheris_server.loops import run_loops
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import EXECUTION_STATEMENTS
from aetheris_server.storage.newest import NewestRunReader
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS

# A shorter log is read back as fast as a snapshot.
_MIN_RECORDS_FOR_SNAPSHOT = 32


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs of the settings."""

    shard_count: int
    cache_max_runs: int
    cache_max_bytes: int
    snapshot_interval_records: int
    limits: RunLimits


class Engine:
    """The runs of the shards that this host has. `run` does the work that nobody asks for.

    Callers use the methods of its parts as its own: to find runs (`finding`), to change them
    (`changing`), to get and lose shards (`shard_table`).

    Attributes:
        dispatcher: Where tasks are offered.
        notices: Where workers are told to cancel.
        tokens: Of the cluster.
        shards: The served shards by number.
    """

    def __init__(
        self,
        settings: EngineSettings,
        clock: Clock,
        db: Database,
        dispatcher: Dispatcher,
        notices: CancellationNotices,
        tokens: Tokens,
        is_leased: Callable[[], bool],
        on_shard_failed: Callable[[int], None],
    ) -> None:
        """Args:
        settings: Of the engine.
        clock: Of this host.
        db: Where the log is.
        dispatcher: Where tasks are offered.
        notices: Where workers are told to cancel.
        tokens: Of the cluster.
        is_leased: Whether nobody else can have the shards of this host.
        on_shard_failed: Called with a shard that must be taken anew.
        """
        self.settings = settings
        self.clock = clock
        self.db = db
        self.dispatcher = dispatcher
        self.notices = notices
        self.tokens = tokens
        self.shards: dict[int, Shard] = {}
        self.cache = RunCache(settings.cache_max_runs, settings.cache_max_bytes, self._on_evicted)
        self.wakeups = WakeUps(
            clock, self.cache, self.shards, dispatcher, self._load_key, self._commit_due
        )
        self._newest_reader = NewestRunReader(db)
        self._newest = NewestRuns(self._newest_reader.load, max_entries=4 * MAX_QUEUED)
        self._table = ShardTable(
            self.shards,
            settings.shard_count,
            self.cache,
            self._newest,
            self.wakeups,
            is_leased,
            on_shard_failed,
        )
        self.writer = LogWriter(db, EXECUTION_STATEMENTS)
        self.committer = Committer(self.writer, self._table.fail)
        refusals = Refusals(clock)
        self._changes = RunChanges(
            clock,
            settings.snapshot_interval_records,
            self._table,
            self.cache,
            self._newest,
            refusals,
            self.wakeups,
            self.committer,
            dispatcher,
            self.offer_queries,
        )
        self._finder = RunFinder(
            clock,
            db,
            self._table,
            self.cache,
            self._newest,
            refusals,
            self.wakeups,
            self._changes.commit,
        )
        self.find_shard = self._table.find
        self.add_shard = self._table.add
        self.release_shard = self._table.release
        self.failed_shards = self._table.failed
        self.load = self._finder.load
        self.load_newest = self._finder.load_newest
        self.preload = self._finder.preload
        self.create = self._changes.create
        self.commit = self._changes.commit

    async def run(self) -> None:
        """Commit, fire timers and look up ids until cancelled."""
        await run_loops(self.committer.run(), self.wakeups.run(), self._newest.run())

    async def close(self) -> None:
        """Close the connections of its own; `run` has ended."""
        await self.writer.close()
        await self._newest_reader.close()

    def time_of(self, run: LoadedRun) -> datetime:
        """A run's own time now: what happens to it goes by that, not by the wall clock."""
        return run.time.read(self.clock)

    # The wake-ups are made before what finds and changes runs, which needs them.

    async def _load_key(self, key: RunKey) -> LoadedRun:
        return await self.load(key.namespace_id, key.workflow_id, key.run_id)

    def _commit_due(self, run: LoadedRun, record: log_pb2.LogRecord) -> Transition:
        return self.commit(run, record)

    def _on_evicted(self, run: LoadedRun) -> None:
        self.wakeups.release(run)
        if not run.needs_snapshot(_MIN_RECORDS_FOR_SNAPSHOT):
            return
        if self.committer.is_full or run.shard_id not in self.shards:
            return
        snapshot = try_snapshot_row(run)
        if snapshot is not None:
            commit = Commit(run.shard_id, rows=[], on_done=lambda _, __: None)
            commit.changes.add(PUT_SNAPSHOTS, snapshot)
            self.committer.enqueue(commit)

    # Offering.

    def offer_query(self, run: LoadedRun, waiting: WaitingQuery) -> None:
        """Have a query asked by itself, by whichever worker of the run is free."""
        ref = workflow_ref(run.state, run.inflight)
        ref.query_id = waiting.query_id
        ref.scheduled_time.CopyFrom(to_timestamp(self.clock.now()))
        ref.expire_time.CopyFrom(to_timestamp(waiting.expire_time))
        self.dispatcher.offer([ref])

    def offer_queries(self, run: LoadedRun) -> None:
        """Have all queries that wait for an answer asked by themselves."""
        for waiting in run.queries.values():
            if not waiting.answer.done():
                self.offer_query(run, waiting)

    def offer_obligations(self, run: LoadedRun) -> None:
        """Offer to matching every task that is due and that nobody has."""
        self.dispatcher.offer(obligations(run.state, run.inflight, self.time_of(run)))
