"""The aggregates in memory, the least recently used first to go.

Bounded in number and in bytes, the bytes by an estimate that each transition brings up to date. One
that is needed stays; one that has closed goes before all that are open.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.telemetry import counter, gauge

_LOADED = gauge("loaded_runs", "Aggregates in memory.")
_EVICTED = counter("evicted_runs", "Aggregates that left memory to make room.")

# How many aggregates that cannot go are passed over for one that can, before the bound is let slip.
_MAX_PASSED_OVER = 64
# The same with each transition, which must not become slow because everything is in use.
_MAX_PASSED_OVER_IN_PASSING = 4


class AggregateCache:
    """Loaded aggregates by id."""

    def __init__(
        self, max_count: int, max_bytes: int, on_evict: Callable[[Aggregate], None]
    ) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._on_evict = on_evict
        self._by_id: OrderedDict[str, Aggregate] = OrderedDict()
        # What a shard has in memory is found without a look at the aggregates of all others.
        self._by_shard: dict[int, dict[str, Aggregate]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Aggregate]:
        return iter(list(self._by_id.values()))

    def of_shard(self, shard_id: int) -> list[Aggregate]:
        """The aggregates of one shard."""
        return list(self._by_shard.get(shard_id, {}).values())

    def find(self, id_: str) -> Aggregate | None:
        """The aggregate, which counts as used now; None if it is not in memory."""
        aggregate = self._by_id.get(id_)
        if aggregate is not None:
            self._by_id.move_to_end(id_)
        return aggregate

    def peek(self, id_: str) -> Aggregate | None:
        """The aggregate, which does not count as used."""
        return self._by_id.get(id_)

    def put(self, aggregate: Aggregate) -> None:
        """Add an aggregate, and make room for it. It stays itself, whatever the bounds are."""
        self._by_id[aggregate.key.id] = aggregate
        self._by_shard.setdefault(aggregate.shard_id, {})[aggregate.key.id] = aggregate
        self._count(aggregate)
        self._make_room(aggregate, _MAX_PASSED_OVER)
        _LOADED.set(len(self._by_id))

    def weigh(self, aggregate: Aggregate) -> None:
        """Count what one in memory takes now, and make room if that has become too much."""
        self._count(aggregate)
        if self._bytes > self._max_bytes:
            self._make_room(aggregate, _MAX_PASSED_OVER_IN_PASSING)
            _LOADED.set(len(self._by_id))

    def _count(self, aggregate: Aggregate) -> None:
        weight = aggregate.estimate_bytes()
        self._bytes += weight - aggregate.weight
        aggregate.weight = weight

    def retire(self, aggregate: Aggregate) -> None:
        """Let an aggregate that has closed go first."""
        if self._by_id.get(aggregate.key.id) is aggregate:
            self._by_id.move_to_end(aggregate.key.id, last=False)

    def drop(self, aggregate: Aggregate) -> None:
        """Forget an aggregate whose memory is no longer to be trusted, or no longer this host's."""
        if self._by_id.get(aggregate.key.id) is aggregate:
            self._remove(aggregate)
            _LOADED.set(len(self._by_id))
        aggregate.is_dropped = True
        aggregate.abandon()

    def _remove(self, aggregate: Aggregate) -> None:
        aggregate.is_dropped = True
        self._bytes -= aggregate.weight
        del self._by_id[aggregate.key.id]
        of_shard = self._by_shard[aggregate.shard_id]
        del of_shard[aggregate.key.id]
        if not of_shard:
            del self._by_shard[aggregate.shard_id]

    def _make_room(self, newest: Aggregate, max_passed_over: int) -> None:
        passed_over = 0
        while (
            len(self._by_id) > self._max_count or self._bytes > self._max_bytes
        ) and passed_over < max_passed_over:
            id_, aggregate = next(iter(self._by_id.items()))
            if aggregate is newest or not aggregate.is_evictable:
                self._by_id.move_to_end(id_)
                passed_over += 1
                continue
            self._remove(aggregate)
            _EVICTED.inc()
            self._on_evict(aggregate)
