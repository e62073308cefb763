"""Finding aggregates: in memory, or read back from the log, each once at a time."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import RunUnreadableError, UnavailableError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.kinds import Kinds
from aetheris_server.history.aggregates.transition import Transition
from aetheris_server.history.engine.cache import AggregateCache
from aetheris_server.history.engine.loader import load_one, load_several
from aetheris_server.history.engine.refusals import Refusals
from aetheris_server.history.engine.shard_table import ShardTable
from aetheris_server.history.engine.wakeups import WakeUps
from aetheris_server.history.shard import Shard
from aetheris_server.storage.database import Database
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_UNREADABLE = counter("unreadable_runs", "Loads of aggregates that were refused for their log.")


class Finder:
    """Finds the aggregates of one engine."""

    def __init__(
        self,
        clock: Clock,
        db: Database,
        kinds: Kinds,
        table: ShardTable,
        cache: AggregateCache,
        refusals: Refusals,
        wakeups: WakeUps,
        commit: Callable[[Aggregate, log_pb2.LogRecord], Transition],
    ) -> None:
        """Args:
        clock: Of this host.
        db: Where the log is.
        kinds: What there is.
        table: The shards.
        cache: Where aggregates are put that have been loaded.
        refusals: Those that are not loaded for a while.
        wakeups: Told of each one that has been loaded.
        commit: Of the engine: a load may make something due at once.
        """
        self._clock = clock
        self._db = db
        self._kinds = kinds
        self._table = table
        self._cache = cache
        self._refusals = refusals
        self._wakeups = wakeups
        self._commit = commit
        # Done when whoever loads an aggregate has it, or has failed.
        self._loading: dict[str, asyncio.Future[None]] = {}

    async def load(self, key: AggregateKey) -> Aggregate:
        """An aggregate, from memory or from the log.

        What follows its return without an await works on the latest state.

        Raises:
            AggregateNotFoundError: There is none of that id with that name, or what the kind has
                for it.
            RunUnreadableError: What is stored of it cannot be used by this program.
            RunSetAsideError: A fault struck it a moment ago.
            ShardNotOwnedError: This host does not have the shard.
            StorageUnavailableError: Postgres does not answer.
        """
        while True:
            shard = self._table.find(key.namespace_id, key.name)
            aggregate = self._cache.find(key.id)
            if aggregate is None:
                await self._load_once(shard, key)
                continue
            if aggregate.key != key:
                raise self._kinds.of(key).not_found(key)
            return aggregate

    async def preload(self, keys: Sequence[AggregateKey]) -> None:
        """Take aggregates into the cache in few statements.

        One that is not there, or at fault, or of a shard that this host does not have, is left out:
        `load` says why.

        Raises:
            UnavailableError: Postgres does not answer, or the disk is too far behind.
        """
        wanted = {key.id: key for key in keys if self._can_be_loaded(key)}
        if not wanted:
            return
        shards = {id_: self._table.find(key.namespace_id, key.name) for id_, key in wanted.items()}
        loop = asyncio.get_running_loop()
        self._loading.update({id_: loop.create_future() for id_ in wanted})
        try:
            pairs = [(shards[id_].shard_id, key) for id_, key in wanted.items()]
            async with aclosing(load_several(self._db, self._kinds, pairs)) as parts:
                async for aggregates in parts:
                    for aggregate in aggregates:
                        if self._table.is_served(shards[aggregate.key.id]):
                            self._try_admit(aggregate)
        finally:
            for id_ in wanted:
                self._loading.pop(id_).set_result(None)

    def _can_be_loaded(self, key: AggregateKey) -> bool:
        """Whether one is not in memory, nobody is loading it, and nothing is against it."""
        return (
            self._table.try_find(key.namespace_id, key.name) is not None
            and self._cache.peek(key.id) is None
            and key.id not in self._loading
            and not self._refusals.is_refused(key.id)
        )

    def _try_admit(self, aggregate: Aggregate) -> None:
        try:
            self._admit(aggregate)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - logged whole
            # One at fault must not keep the others from being loaded.
            key = aggregate.key
            _log.exception("an aggregate cannot be taken into memory", kind=key.kind, id=key.id)
            self._cache.drop(aggregate)

    async def _load_once(self, shard: Shard, key: AggregateKey) -> None:
        """Take an aggregate into the cache, or wait for whoever is doing so."""
        loading = self._loading.get(key.id)
        if loading is not None:
            await asyncio.wait([loading])
            return
        loading = self._loading[key.id] = asyncio.get_running_loop().create_future()
        try:
            self._refusals.check(key.id)
            kind = self._kinds.of(key)
            aggregate = await load_one(self._db, kind, shard.shard_id, key)
            if not self._table.is_served(shard):
                # Whoever had it meanwhile may have changed it, or begun one that was not there.
                return
            if aggregate is None:
                raise kind.not_found(key)
            self._admit(aggregate)
        except RunUnreadableError as error:
            self._refuse(key.id, error)
            raise
        finally:
            del self._loading[key.id]
            loading.set_result(None)

    def _refuse(self, id_: str, error: RunUnreadableError) -> None:
        """Note, once in a while, that one cannot be read, and do not try again at once."""
        if not self._refusals.is_refused(id_):
            _log.error("an aggregate is refused for what is stored of it", error=str(error))
            _UNREADABLE.inc()
            self._refusals.add(id_, error)

    def _admit(self, aggregate: Aggregate) -> None:
        self._wakeups.set_time(aggregate)
        now = aggregate.time.read(self._clock)
        taken_at = self._table.of(aggregate).taken_at
        aggregate.restore(now, self._clock.monotonic(), taken_at)
        self._cache.put(aggregate)
        self._wakeups.admit(aggregate)
        record = aggregate.decide_restored(now)
        if record is not None:
            try:
                self._commit(aggregate, record)
            except UnavailableError:
                self._cache.drop(aggregate)
                raise
