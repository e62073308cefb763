"""Deadlines of runs: at most one of a kind for each run, the first to come at hand."""

import heapq
import itertools
from datetime import datetime
from typing import Generic, TypeVar

from aetheris_server.history.state.run import RunKey

T = TypeVar("T", datetime, float)

# Below this many, what has been superseded may stay.
_MIN_LENGTH = 64


class Deadlines(Generic[T]):
    """The deadlines of runs by one clock.

    What is superseded or discarded stays in the heap until it comes up, or until it is half of it:
    so the heap is bounded by the number of runs, and each call costs a step or a few.
    """

    def __init__(self) -> None:
        self._by_run: dict[str, T] = {}
        self._heap: list[tuple[T, int, RunKey]] = []
        self._tiebreak = itertools.count()

    def __len__(self) -> int:
        """How many runs have one."""
        return len(self._by_run)

    @property
    def heap_length(self) -> int:
        """How many entries are kept for them."""
        return len(self._heap)

    def find(self, run_id: str) -> T | None:
        """A run's; None if it has none."""
        return self._by_run.get(run_id)

    def put(self, key: RunKey, deadline: T) -> bool:
        """Give a run a deadline, unless it has an earlier one.

        Returns:
            Whether it is now the first of all.
        """
        known = self._by_run.get(key.run_id)
        if known is not None and known <= deadline:
            return False
        self._by_run[key.run_id] = deadline
        heapq.heappush(self._heap, (deadline, next(self._tiebreak), key))
        if len(self._heap) > 2 * len(self._by_run) + _MIN_LENGTH:
            self._compact()
        return self._heap[0][2] is key

    def discard(self, run_id: str) -> None:
        """Forget a run's deadline, if it has one."""
        self._by_run.pop(run_id, None)

    def first(self) -> T | None:
        """The first of all; None if there is none."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: T) -> RunKey | None:
        """The run whose deadline is the first to have come, and that has none from here on."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._by_run[key.run_id]
        return key

    def _drop_stale(self) -> None:
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._is_live(entry)]
        heapq.heapify(self._heap)

    def _is_live(self, entry: tuple[T, int, RunKey]) -> bool:
        return self._by_run.get(entry[2].run_id) == entry[0]
