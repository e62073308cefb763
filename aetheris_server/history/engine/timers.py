"""Deadlines of aggregates: at most one of a kind for each aggregate, the first to come at hand."""

import heapq
import itertools
from collections.abc import Callable
from datetime import datetime

from aetheris_server.history.aggregates.key import AggregateKey

# Below this many, what has been superseded may stay.
_MIN_LENGTH = 64


class Deadlines:
    """The deadlines of aggregates by the clock for intervals.

    What is superseded or discarded stays in the heap until it comes up, or until it is half of it:
    so the heap is bounded by the number of aggregates, and each call costs a step or a few.
    """

    def __init__(self) -> None:
        self._by_run: dict[str, float] = {}
        self._heap: list[tuple[float, int, AggregateKey]] = []
        self._tiebreak = itertools.count()

    def __len__(self) -> int:
        """How many aggregates have a deadline."""
        return len(self._by_run)

    @property
    def heap_length(self) -> int:
        """How many entries the heap has for them."""
        return len(self._heap)

    def find(self, id_: str) -> float | None:
        """The deadline of an aggregate; None if it has none."""
        return self._by_run.get(id_)

    def put(self, key: AggregateKey, deadline: float) -> bool:
        """Give an aggregate a deadline, unless it has an earlier one.

        Returns:
            Whether it is now the first of all.
        """
        known = self._by_run.get(key.id)
        if known is not None and known <= deadline:
            return False
        self._by_run[key.id] = deadline
        heapq.heappush(self._heap, (deadline, next(self._tiebreak), key))
        if len(self._heap) > 2 * len(self._by_run) + _MIN_LENGTH:
            self._compact()
        return self._heap[0][2] is key

    def discard(self, id_: str) -> None:
        """Forget an aggregate's deadline, if it has one."""
        self._by_run.pop(id_, None)

    def move(self, to: Callable[[str, float], float]) -> None:
        """Put all of them anew: `to` says, from an id and its deadline until now, when it is."""
        live = [entry for entry in self._heap if self._is_live(entry)]
        self._heap = [(to(key.id, at), number, key) for at, number, key in live]
        self._by_run = {key.id: at for at, _, key in self._heap}
        heapq.heapify(self._heap)

    def first(self) -> float | None:
        """The first of all; None if there is none."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> AggregateKey | None:
        """The one whose deadline is the first to have come, and that has none from here on."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > now:
            return None
        key = heapq.heappop(self._heap)[2]
        del self._by_run[key.id]
        return key

    def _drop_stale(self) -> None:
        while self._heap and not self._is_live(self._heap[0]):
            heapq.heappop(self._heap)

    def _compact(self) -> None:
        self._heap = [entry for entry in self._heap if self._is_live(entry)]
        heapq.heapify(self._heap)

    def _is_live(self, entry: tuple[float, int, AggregateKey]) -> bool:
        return self._by_run.get(entry[2].id) == entry[0]


class DurableDeadlines:
    """Wall-clock times of aggregates, each with the moment at which the clock for intervals gets
    there.

    One is due at that moment. A step of the wall clock backwards changes nothing, one forwards
    brings the moments forward: see `step_forward`.
    """

    def __init__(self) -> None:
        self._moments = Deadlines()
        self._times: dict[str, datetime] = {}

    def __len__(self) -> int:
        """How many aggregates have a deadline."""
        return len(self._moments)

    @property
    def heap_length(self) -> int:
        """How many entries the heap has for them."""
        return self._moments.heap_length

    def find(self, id_: str) -> tuple[datetime, float] | None:
        """An aggregate's, and its moment; None if it has none."""
        moment = self._moments.find(id_)
        return (self._times[id_], moment) if moment is not None else None

    def put(self, key: AggregateKey, time: datetime, moment: float) -> bool:
        """Give an aggregate a deadline, unless it has one with an earlier moment.

        Returns:
            Whether it is now the first of all.
        """
        known = self._moments.find(key.id)
        if known is not None and known <= moment:
            return False
        self._times[key.id] = time
        return self._moments.put(key, moment)

    def discard(self, id_: str) -> None:
        """Forget an aggregate's deadline, if it has one."""
        self._moments.discard(id_)
        self._times.pop(id_, None)

    def first(self) -> float | None:
        """The first moment of all; None if there is none."""
        return self._moments.first()

    def pop_due(self, at: float) -> tuple[AggregateKey, datetime] | None:
        """The one whose moment is the first to have come, and its time, which it is done with."""
        key = self._moments.pop_due(at)
        return (key, self._times.pop(key.id)) if key is not None else None

    def step_forward(self, now: datetime, at: float) -> None:
        """The wall clock has stepped to `now` at the moment `at`: some moments are earlier now."""

        def earlier(id_: str, moment: float) -> float:
            return min(moment, at + (self._times[id_] - now).total_seconds())

        self._moments.move(earlier)
