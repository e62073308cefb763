"""The runs in memory, the least recently used first to go.

Bounded in number and in bytes, the bytes by an estimate that each transition brings up to date. A
run that is needed stays; one that has closed goes before all that are open.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from aetheris_server.history.run import LoadedRun
from aetheris_server.telemetry import counter, gauge

_LOADED = gauge("loaded_runs", "Runs in memory.")
_EVICTED = counter("evicted_runs", "Runs that left memory to make room.")

# How many runs that cannot go are passed over for one that can, before the bound is let slip.
_MAX_PASSED_OVER = 64
# The same with each transition, which must not become slow because everything is in use.
_MAX_PASSED_OVER_IN_PASSING = 4


class RunCache:
    """Loaded runs by run id."""

    def __init__(
        self, max_runs: int, max_bytes: int, on_evict: Callable[[LoadedRun], None]
    ) -> None:
        self._max_runs = max_runs
        self._max_bytes = max_bytes
        self._bytes = 0
        self._on_evict = on_evict
        self._runs: OrderedDict[str, LoadedRun] = OrderedDict()
        # What a shard has in memory is found without a look at the runs of all others.
        self._by_shard: dict[int, dict[str, LoadedRun]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LoadedRun]:
        return iter(list(self._runs.values()))

    def of_shard(self, shard_id: int) -> list[LoadedRun]:
        """The runs of one shard."""
        return list(self._by_shard.get(shard_id, {}).values())

    def find(self, run_id: str) -> LoadedRun | None:
        """The run, which counts as used now; None if it is not in memory."""
        run = self._runs.get(run_id)
        if run is not None:
            self._runs.move_to_end(run_id)
        return run

    def peek(self, run_id: str) -> LoadedRun | None:
        """The run, which does not count as used."""
        return self._runs.get(run_id)

    def put(self, run: LoadedRun) -> None:
        """Add a run, and make room for it. It stays itself, whatever the bounds are."""
        self._runs[run.key.run_id] = run
        self._by_shard.setdefault(run.shard_id, {})[run.key.run_id] = run
        self._count(run)
        self._make_room(run, _MAX_PASSED_OVER)
        _LOADED.set(len(self._runs))

    def weigh(self, run: LoadedRun) -> None:
        """Count what a run in memory takes now, and make room if that has become too much."""
        self._count(run)
        if self._bytes > self._max_bytes:
            self._make_room(run, _MAX_PASSED_OVER_IN_PASSING)
            _LOADED.set(len(self._runs))

    def _count(self, run: LoadedRun) -> None:
        weight = run.estimate_bytes()
        self._bytes += weight - run.weight
        run.weight = weight

    def retire(self, run: LoadedRun) -> None:
        """Let a run that has closed go first."""
        if self._runs.get(run.key.run_id) is run:
            self._runs.move_to_end(run.key.run_id, last=False)

    def drop(self, run: LoadedRun) -> None:
        """Forget a run whose memory is no longer to be trusted, or no longer this host's."""
        if self._runs.get(run.key.run_id) is run:
            self._remove(run)
            _LOADED.set(len(self._runs))
        run.is_dropped = True
        run.abandon()

    def _remove(self, run: LoadedRun) -> None:
        run.is_dropped = True
        self._bytes -= run.weight
        del self._runs[run.key.run_id]
        of_shard = self._by_shard[run.shard_id]
        del of_shard[run.key.run_id]
        if not of_shard:
            del self._by_shard[run.shard_id]

    def _make_room(self, newest: LoadedRun, max_passed_over: int) -> None:
        passed_over = 0
        while (
            len(self._runs) > self._max_runs or self._bytes > self._max_bytes
        ) and passed_over < max_passed_over:
            run_id, run = next(iter(self._runs.items()))
            if run is newest or not run.is_evictable:
                self._runs.move_to_end(run_id)
                passed_over += 1
                continue
            self._remove(run)
            _EVICTED.inc()
            self._on_evict(run)
