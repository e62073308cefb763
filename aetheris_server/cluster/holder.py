"""What the cluster tells and asks whoever serves this host's shards, of which it knows no more.

    free ── take ──► held ── finish ──────────────► free        another host should have it
                      │
                      └─ a commit fails ─► failed ── take ──► held
                                              └───── drop ──► another host's

A host that was buried drops what is held and what has failed: all of it may be other hosts'.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

from aetheris_server.storage.shards import AcquiredShard


class ShardHolder(Protocol):
    """Serves shards. It tells of those that fail by `Membership.on_shard_failed`."""

    @property
    def held(self) -> AbstractSet[int]:
        """The shards that are served now."""
        ...

    @property
    def failed(self) -> Collection[int]:
        """The shards that a failed commit took away, as long as memory of them is kept for when
        they are taken anew.
        """
        ...

    def make_note(self, shard_id: int, range_id: int) -> tuple[bytes, bytes]:
        """The log record that says that this host takes a shard, and its hash."""
        ...

    def take(self, taken: Sequence[AcquiredShard], taken_at: float) -> None:
        """Serve shards that are this host's from now on.

        Args:
            taken: n >= 1 of them.
            taken_at: Before they were asked for, by the clock for intervals.
        """
        ...

    def drop(self, shard_id: int) -> None:
        """Forget a shard, which may be another host's; nothing may be queued for it."""
        ...

    async def finish(self, shard_ids: Collection[int]) -> list[tuple[int, int]]:
        """Stop serving shards that are held, and return when what was queued for them is on disk
        or has had its time.

        Returns:
            (shard_id, range_id) of each.
        """
        ...

    async def settle(self) -> None:
        """Write what spares the next owners work.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        ...
