"""Who is told of what becomes of the aggregates of an engine."""

from typing import Protocol

from aetheris_server.history.aggregates.aggregate import Aggregate


class Follower(Protocol):
    """What one kind keeps in memory besides its aggregates. No method awaits or raises."""

    def note_indexed(self, aggregate: Aggregate) -> None:
        """One has just begun or closed, in memory; the disk may not have it yet."""
        ...

    def note_closed(self, aggregate: Aggregate) -> None:
        """A record of one that has closed is on disk, or has failed."""
        ...

    def forget_shard(self, shard_id: int) -> None:
        """What is known of a shard is not to be trusted, or not this host's, any more."""
        ...
