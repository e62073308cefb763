"""Takes the shards that this host should have, and gives up those that another should have."""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet

from aetheris_server.clock import Clock
from aetheris_server.cluster.directory import Directory
from aetheris_server.cluster.holder import ShardHolder
from aetheris_server.storage.database import Database
from aetheris_server.storage.shards import ShardRow, acquire_shards, release_shards
from aetheris_server.telemetry import gauge, get_logger

_log = get_logger(__name__)

_OWNED = gauge("owned_shards", "Shards that this host has.")


class Ownership:
    """The shards of one host.

    Attributes:
        term: How many times the host has lost them all, because it was buried. What was begun in
            one term and ends in a later one counts for nothing.
    """

    def __init__(
        self, db: Database, host_id: str, clock: Clock, directory: Directory, holder: ShardHolder
    ) -> None:
        self.term = 0
        self._db = db
        self._host_id = host_id
        self._clock = clock
        self._directory = directory
        self._holder = holder
        _OWNED.set_function(lambda: len(holder.held))

    @property
    def missing(self) -> AbstractSet[int]:
        """The shards that this host should have and does not."""
        return self._directory.wanted - self._holder.held

    @property
    def is_complete(self) -> bool:
        """Whether nothing is missing, and nothing that has failed is in memory."""
        return not self.missing and not self._holder.failed

    def lose_all(self) -> None:
        """The host was buried: whatever it had may be other hosts' by now."""
        self.term += 1
        for shard_id in [*self._holder.held, *self._holder.failed]:
            self._holder.drop(shard_id)

    async def move(self, rows: Sequence[ShardRow], term: int) -> None:
        """Bring the shards to whom they belong, as far as they are this host's or free.

        Args:
            rows: All shards, as they are noted in the directory.
            term: In which the rows were read.

        Raises:
            UnavailableError: Postgres does not answer; what was done until then stands.
        """
        await self.release(self._holder.held - self._directory.wanted)
        for shard_id in list(self._holder.failed):
            if self._directory.is_elsewhere(shard_id):
                self._holder.drop(shard_id)
        await self._release_strays(rows)
        missing = self.missing
        free = [
            row.shard_id
            for row in rows
            if row.shard_id in missing
            and (row.host_id == self._host_id or row.shard_id not in self._directory.owners)
        ]
        if free and term == self.term:
            await self._acquire(free, term)

    async def release(self, shard_ids: Collection[int]) -> None:
        """Give up shards that are held, once what is queued for them is on disk or has had its
        time.

        Raises:
            UnavailableError: Postgres does not answer. They are no longer served; their rows still
                name this host.
        """
        if not shard_ids:
            return
        await release_shards(self._db, self._host_id, await self._holder.finish(shard_ids))
        _log.info("shards released", count=len(shard_ids))

    async def release_all(self) -> None:
        """Give up all that this host has; raises like `release`."""
        await self.release(set(self._holder.held))

    async def _release_strays(self, rows: Sequence[ShardRow]) -> None:
        """Give up shards that are this host's by their rows alone, and that another should have.

        They are those whose taking or giving up failed half-way.
        """
        strays = [
            (row.shard_id, row.range_id)
            for row in rows
            if row.host_id == self._host_id
            and row.shard_id not in self._directory.wanted
            and row.shard_id not in self._holder.held
        ]
        if strays:
            await release_shards(self._db, self._host_id, strays)
            for shard_id, _ in strays:
                self._holder.drop(shard_id)

    async def _acquire(self, shard_ids: Sequence[int], term: int) -> None:
        asked_at = self._clock.monotonic()
        taken = await acquire_shards(
            self._db, self._host_id, sorted(shard_ids), self._holder.make_note
        )
        if taken and term == self.term:
            # Else the host was buried meanwhile, and maybe these with it.
            self._holder.take(taken, asked_at)
            _log.info("shards taken", count=len(taken))
