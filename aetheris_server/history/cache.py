"""The runs in memory, the least recently used first to go. Bounded; a run that is needed stays."""

from collections import OrderedDict
from collections.abc import Callable, Iterator

from aetheris_server.history.run import LoadedRun
from aetheris_server.telemetry import counter, gauge

_LOADED = gauge("loaded_runs", "Runs in memory.")
_EVICTED = counter("evicted_runs", "Runs that left memory to make room.")

# How many runs that cannot go are passed over for one that can, before the bound is let slip.
_MAX_PASSED_OVER = 64


class RunCache:
    """Loaded runs by run id."""

    def __init__(self, max_runs: int, on_evict: Callable[[LoadedRun], None]) -> None:
        self._max_runs = max_runs
        self._on_evict = on_evict
        self._runs: OrderedDict[str, LoadedRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[LoadedRun]:
        return iter(list(self._runs.values()))

    def find(self, run_id: str) -> LoadedRun | None:
        """The run, which counts as used now; None if it is not in memory."""
        run = self._runs.get(run_id)
        if run is not None:
            self._runs.move_to_end(run_id)
        return run

    def put(self, run: LoadedRun) -> None:
        """Add a run, and make room for it."""
        self._runs[run.key.run_id] = run
        self._make_room()
        _LOADED.set(len(self._runs))

    def drop(self, run: LoadedRun) -> None:
        """Forget a run whose memory is no longer to be trusted, or no longer this host's."""
        run.is_dropped = True
        if self._runs.get(run.key.run_id) is run:
            del self._runs[run.key.run_id]
        run.notify()

    def _make_room(self) -> None:
        passed_over = 0
        while len(self._runs) > self._max_runs and passed_over < _MAX_PASSED_OVER:
            run_id, run = next(iter(self._runs.items()))
            if not run.is_evictable:
                self._runs.move_to_end(run_id)
                passed_over += 1
                continue
            del self._runs[run_id]
            run.is_dropped = True
            _EVICTED.inc()
            self._on_evict(run)
