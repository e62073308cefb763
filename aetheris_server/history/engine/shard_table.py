"""The shards that this host has: how the engine gets them and loses them.

                          add
    (none) ─────────────────────────────────► served
       ▲  ▲                                    │  │
       │  └────────── release, or lost ────────┘  │ a commit fails
       │ release                                  ▼
       └───────────────────────────────────────  failed  ── add ──► served

Of a failed shard memory keeps what is on disk, which is good as long as nobody else has had the
shard since; of one that is released or lost it keeps nothing.
"""

from collections.abc import Callable, Collection

from aetheris_server.errors import ShardNotOwnedError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.follower import Follower
from aetheris_server.history.engine.cache import AggregateCache
from aetheris_server.history.engine.wakeups import WakeUps
from aetheris_server.history.shard import Shard
from aetheris_server.ids import shard_of
from aetheris_server.telemetry import counter

_DROPPED = counter("dropped_runs", "Aggregates whose memory was dropped because a commit failed.")


class ShardTable:
    """The shards of one engine, and what is in memory of them."""

    def __init__(
        self,
        shards: dict[int, Shard],
        shard_count: int,
        cache: AggregateCache,
        followers: Collection[Follower],
        wakeups: WakeUps,
        is_leased: Callable[[], bool],
        on_shard_failed: Callable[[int], None],
    ) -> None:
        """Args:
        shards: The served ones by number, which nothing else changes.
        shard_count: Of the cluster.
        cache: Of their aggregates.
        followers: Told of those that this host has not had since.
        wakeups: Of their aggregates.
        is_leased: Whether nobody else can have the shards of this host.
        on_shard_failed: Called with a shard that must be taken anew.
        """
        self._shards = shards
        self._shard_count = shard_count
        self._cache = cache
        self._followers = followers
        self._wakeups = wakeups
        self._is_leased = is_leased
        self._on_shard_failed = on_shard_failed
        self._failed_ranges: dict[int, int] = {}

    def id_of(self, namespace_id: str, name: str) -> int:
        """The number of a name's shard, whoever has it."""
        return shard_of(namespace_id, name, self._shard_count)

    def find(self, namespace_id: str, name: str) -> Shard:
        """The shard of a name.

        Raises:
            ShardNotOwnedError: This host does not have it, or cannot know: its lease has run out,
                so another host may have written what is not in memory here.
        """
        shard_id = shard_of(namespace_id, name, self._shard_count)
        shard = self._shards.get(shard_id)
        if shard is None or not self._is_leased():
            raise ShardNotOwnedError(shard_id)
        return shard

    def try_find(self, namespace_id: str, name: str) -> Shard | None:
        """The shard of a name; None where `find` raises."""
        shard = self._shards.get(shard_of(namespace_id, name, self._shard_count))
        return shard if self._is_leased() else None

    def of(self, aggregate: Aggregate) -> Shard:
        """The shard of an aggregate in memory.

        Raises:
            ShardNotOwnedError: It is not served any more.
        """
        shard = self._shards.get(aggregate.shard_id)
        if shard is None:
            raise ShardNotOwnedError(aggregate.shard_id)
        return shard

    def is_served(self, shard: Shard) -> bool:
        """Whether a shard is still this host's, in the same span of ownership."""
        return self._shards.get(shard.shard_id) is shard

    def add(self, shard: Shard) -> None:
        """Serve a shard that has just been taken.

        What is in memory of it after a failed commit is good only if nobody had it since.
        """
        if self._failed_ranges.pop(shard.shard_id, None) != shard.range_id - 1:
            self._drop_all(shard.shard_id)
        # A look-up from before may have been answered since.
        self._forget(shard.shard_id)
        self._shards[shard.shard_id] = shard

    def failed(self) -> list[int]:
        """The shards that a failed commit took away and that have not been taken anew since."""
        return list(self._failed_ranges)

    def release(self, shard_id: int) -> None:
        """Forget a shard and all of its aggregates; nothing may be queued for it."""
        self._shards.pop(shard_id, None)
        self._failed_ranges.pop(shard_id, None)
        self._drop_all(shard_id)
        self._forget(shard_id)

    def fail(self, shard_id: int, range_id: int, is_lost: bool) -> None:
        """Forget all that the disk may not have. The shard must be taken anew before it is used."""
        shard = self._shards.get(shard_id)
        if shard is not None and shard.range_id != range_id:
            # It has been taken anew since, which has settled what failed.
            return
        self._shards.pop(shard_id, None)
        self._forget(shard_id)
        for aggregate in self._cache.of_shard(shard_id):
            if is_lost or not aggregate.is_committed:
                self._drop(aggregate)
                _DROPPED.inc()
        if shard is not None and not is_lost:
            # The last, so that a fault above leaves nothing in memory that would be trusted.
            self._failed_ranges[shard_id] = range_id
        self._on_shard_failed(shard_id)

    def _forget(self, shard_id: int) -> None:
        for follower in self._followers:
            follower.forget_shard(shard_id)

    def _drop_all(self, shard_id: int) -> None:
        for aggregate in self._cache.of_shard(shard_id):
            self._drop(aggregate)

    def _drop(self, aggregate: Aggregate) -> None:
        self._cache.drop(aggregate)
        self._wakeups.release(aggregate)
