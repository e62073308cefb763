"""The one write path: load, decide, apply, enqueue, and only then await.

Between the return of `load` and the call of `commit` nothing awaits. So asyncio itself makes a
transition atomic, and there are no locks. State runs ahead of the disk; the ticket that `commit`
returns tells when the disk has caught up, and nothing may leave the process before.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.follower import Follower
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.kinds import Kinds
from aetheris_server.history.aggregates.transition import Transition
from aetheris_server.history.engine.cache import AggregateCache
from aetheris_server.history.engine.changing import Changes
from aetheris_server.history.engine.committer import Commit, Committer
from aetheris_server.history.engine.finding import Finder
from aetheris_server.history.engine.refusals import Refusals
from aetheris_server.history.engine.rows import try_snapshot_row
from aetheris_server.history.engine.shard_table import ShardTable
from aetheris_server.history.engine.wakeups import WakeUps
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.shard import Shard
from aetheris_server.loops import run_loops
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS

# A shorter log is read back as fast as a snapshot.
_MIN_RECORDS_FOR_SNAPSHOT = 32


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs of the settings."""

    shard_count: int
    cache_max_count: int
    cache_max_bytes: int
    snapshot_interval_records: int


class Engine:
    """The aggregates of the shards that this host has. `run` does the work that nobody asks for.

    Callers use the methods of its parts as its own: to find aggregates (`finding`), to change them
    (`changing`), to get and lose shards (`shard_table`).

    Attributes:
        kinds: What there is.
        dispatcher: Where what they owe is offered.
        shards: The served shards by number.
    """

    def __init__(
        self,
        settings: EngineSettings,
        kinds: Kinds,
        clock: Clock,
        db: Database,
        dispatcher: Dispatcher,
        is_leased: Callable[[], bool],
        on_shard_failed: Callable[[int], None],
        followers: Mapping[str, Follower],
    ) -> None:
        """Args:
        settings: Of the engine.
        kinds: What there is.
        clock: Of this host.
        db: Where the log is.
        dispatcher: Where what they owe is offered.
        is_leased: Whether nobody else can have the shards of this host.
        on_shard_failed: Called with a shard that must be taken anew.
        followers: Of the aggregates, by kind, where a kind has one.
        """
        self.kinds = kinds
        self.clock = clock
        self.db = db
        self.dispatcher = dispatcher
        self.shards: dict[int, Shard] = {}
        self.cache = AggregateCache(
            settings.cache_max_count, settings.cache_max_bytes, self._on_evicted
        )
        self.wakeups = WakeUps(
            clock, self.cache, self.shards, dispatcher, self._load_due, self._commit_due
        )
        self._table = ShardTable(
            self.shards,
            settings.shard_count,
            self.cache,
            list(followers.values()),
            self.wakeups,
            is_leased,
            on_shard_failed,
        )
        self.writer = LogWriter(db, kinds.statements())
        self.committer = Committer(self.writer, self._table.fail)
        refusals = Refusals(clock)
        self._changes = Changes(
            clock,
            settings.snapshot_interval_records,
            kinds,
            self._table,
            self.cache,
            refusals,
            self.wakeups,
            self.committer,
            dispatcher,
            followers,
        )
        self._finder = Finder(
            clock,
            db,
            kinds,
            self._table,
            self.cache,
            refusals,
            self.wakeups,
            self._changes.commit,
        )
        self.find_shard = self._table.find
        self.shard_id_of = self._table.id_of
        self.is_served = self._table.is_served
        self.add_shard = self._table.add
        self.release_shard = self._table.release
        self.failed_shards = self._table.failed
        self.load = self._finder.load
        self.preload = self._finder.preload
        self.create = self._changes.create
        self.commit = self._changes.commit
        self.begin = self._changes.begin

    async def run(self) -> None:
        """Commit and fire timers until cancelled."""
        await run_loops(self.committer.run(), self.wakeups.run())

    async def close(self) -> None:
        """Close the connection of its own; `run` has ended."""
        await self.writer.close()

    def time_of(self, aggregate: Aggregate) -> datetime:
        """An aggregate's own time now: what happens to it goes by that, not by the wall clock."""
        return aggregate.time.read(self.clock)

    async def offer_obligations(self, aggregate: Aggregate) -> None:
        """Offer everything that an aggregate owes now, that is due and that nobody has; returns
        when all that it follows from is on disk.

        Raises:
            UnavailableError: It will not be; nothing was offered.
        """
        owed = list(aggregate.obligations(self.time_of(aggregate)))
        await aggregate.wait_committed()
        self.dispatcher.offer(owed)

    # The wake-ups are made before what finds and changes aggregates, which needs them.

    async def _load_due(self, key: AggregateKey) -> Aggregate:
        return await self.load(key)

    def _commit_due(self, aggregate: Aggregate, record: log_pb2.LogRecord) -> Transition:
        return self.commit(aggregate, record)

    def _on_evicted(self, aggregate: Aggregate) -> None:
        self.wakeups.release(aggregate)
        if not aggregate.needs_snapshot(_MIN_RECORDS_FOR_SNAPSHOT):
            return
        if self.committer.is_full or aggregate.shard_id not in self.shards:
            return
        snapshot = try_snapshot_row(aggregate)
        if snapshot is not None:
            commit = Commit(aggregate.shard_id, rows=[], on_done=lambda _, __: None)
            commit.changes.add(PUT_SNAPSHOTS, snapshot)
            self.committer.enqueue(commit)
