"""Pairs the tasks and the pollers of one task queue. Pure: no I/O, no waiting, `now` is given.

A task is either held here, in the sub-queue of its sticky queue and its required capabilities, or
assigned to one poller, or with the caller. Invariants: a poller gets only tasks whose capabilities
it has, never more than its `max_tasks`; among held tasks that it may have, the lowest score first;
no task that a poller in line may have is held back, but for its sticky worker.

Sticky: a task that names a sticky queue is kept for the pollers of that queue while one that may
have it waits or was seen within STICKY_PRESENCE seconds, until `sticky_until`; then any fit poller
may have it.

Default: what a task requires that requires nothing by itself. It counts where a task and a poller
meet, so that it may change while tasks wait.

Left to others: waking pollers, the backlog, and what a task is about. Priority and fairness will
change how `score` is made, and nothing here.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import count
from math import inf
from typing import Any, Generic, NamedTuple, TypeVar

STICKY_PRESENCE = 1.5
"""Seconds for which a sticky worker that holds no poll is still expected to poll again."""

PRESENCE = 1.0
"""Seconds for which a worker that holds no poll is still expected to poll again."""

_FORGET_AFTER = 60.0

Capabilities = frozenset[str]

NO_CAPABILITIES: Capabilities = frozenset()


class _Sight(NamedTuple):
    """When a sticky worker was seen last, and what it could do then."""

    at: float
    capabilities: Capabilities


class SubQueue(NamedTuple):
    """The tasks of one queue that the same pollers may have. `sticky_queue` is empty for all."""

    sticky_queue: str
    capabilities: Capabilities


class Task:
    """A task as far as matching cares.

    Attributes:
        key: Identifies it within its task queue.
        score: What it is ordered by, lowest first.
        capabilities: What its poller must be able to do.
        sticky_queue: Whose pollers are preferred; empty for none.
        sticky_until: When that preference ends.
        expire_at: When it is no longer wanted.
    """

    __slots__ = (
        "capabilities",
        "expire_at",
        "key",
        "place",
        "score",
        "sticky_queue",
        "sticky_until",
    )

    def __init__(
        self,
        key: str,
        score: float,
        capabilities: Capabilities = NO_CAPABILITIES,
        sticky_queue: str = "",
        sticky_until: float = inf,
        expire_at: float = inf,
    ) -> None:
        self.key = key
        self.score = score
        self.capabilities = capabilities
        self.sticky_queue = sticky_queue
        self.sticky_until = sticky_until
        self.expire_at = expire_at
        # Where it is held, if it is: the sub-queue and its rank there.
        self.place: tuple[SubQueue, float, int] | None = None


T = TypeVar("T", bound=Task)


class WaitingPoll(Generic[T]):
    """One poll.

    Attributes:
        capabilities: What it can do.
        sticky_queue: The queue that only its worker polls; empty for none.
        max_tasks: At least 1.
        tasks: What it was assigned since it got in line.
        turn: Its place in line; None while it is not in line or has no room.
    """

    __slots__ = ("capabilities", "max_tasks", "sticky_queue", "tasks", "turn")

    def __init__(
        self,
        capabilities: Capabilities = NO_CAPABILITIES,
        sticky_queue: str = "",
        max_tasks: int = 1,
    ) -> None:
        self.capabilities = capabilities
        self.sticky_queue = sticky_queue
        self.max_tasks = max_tasks
        self.tasks: list[T] = []
        self.turn: int | None = None


P = TypeVar("P", bound=WaitingPoll[Any])
# Front first: the poller that waited longest or was served longest ago.
Line = OrderedDict[P, None]


class Matcher(Generic[T, P]):
    """The held tasks and the pollers in line of one task queue."""

    def __init__(self, default: Capabilities = NO_CAPABILITIES) -> None:
        """Args:
        default: What tasks require that require nothing by themselves.
        """
        self._default = default
        self._turns = count()
        self._ranks = count()
        self._held: dict[str, T] = {}
        self._sub_queues: dict[SubQueue, list[tuple[float, int, T]]] = {}
        self._lines: dict[Capabilities, Line[P]] = {}
        self._sticky_lines: dict[str, Line[P]] = {}
        self._seen: dict[Capabilities, float] = {}
        self._sticky_seen: dict[str, _Sight] = {}

    @property
    def held_count(self) -> int:
        """Tasks held."""
        return len(self._held)

    def held(self) -> Iterable[T]:
        """The held tasks, in no order."""
        return self._held.values()

    def find(self, key: str) -> T | None:
        """The held task of that key."""
        return self._held.get(key)

    def in_line(self) -> Iterator[P]:
        """The pollers that have room, in no order."""
        for line in self._lines.values():
            yield from line

    def offer(self, task: T, now: float) -> P | None:
        """Assign a task to the poller whose turn it is and return that, or hold it.

        The task's key is not held.
        """
        poller = self._pick(task, now)
        if poller is None:
            self._hold(task, now)
        else:
            self._assign(task, poller)
        return poller

    def claim(self, poller: P, now: float) -> list[T]:
        """Hand over the held tasks that a poller not in line may have now.

        At most its `max_tasks`, lowest score first; they are no longer held.
        """
        self._note_seen(poller, now)
        if not self._held:
            return []
        open_to = [
            entries
            for sub_queue, entries in self._sub_queues.items()
            if self.may_have(poller, sub_queue, now)
        ]
        claimed: list[T] = []
        while open_to and len(claimed) < poller.max_tasks:
            entries = min(open_to, key=_head)
            task = entries[0][2]
            if len(entries) == 1:
                open_to.remove(entries)
            self.withdraw(task)
            if task.expire_at > now:
                claimed.append(task)
        return claimed

    def may_have(self, poller: P, sub_queue: SubQueue, now: float) -> bool:
        """Whether tasks of a sub-queue may go to a poller."""
        required = sub_queue.capabilities or self._default
        return required <= poller.capabilities and (
            not sub_queue.sticky_queue
            or sub_queue.sticky_queue == poller.sticky_queue
            or not self._is_sticky_present(sub_queue.sticky_queue, required, now)
        )

    def line_up(self, poller: P, now: float) -> None:
        """Put a poller in line for the tasks to come. It claimed before, at the same `now`."""
        self._note_seen(poller, now)
        self._take_turn(poller)

    def leave(self, poller: P, now: float) -> list[T]:
        """Take a poller out of line, if it is there, with what it was assigned."""
        self._note_seen(poller, now)
        self._drop_from_line(poller)
        tasks, poller.tasks = poller.tasks, []
        return tasks

    def forget_sticky(self, sticky_queue: str) -> None:
        """The worker of a sticky queue does not come back; none of its pollers is in line."""
        self._sticky_seen.pop(sticky_queue, None)

    def withdraw(self, task: T) -> bool:
        """Take a task back; False if it is not held."""
        if task.place is None:
            return False
        sub_queue, score, rank = task.place
        entries = self._sub_queues[sub_queue]
        del entries[bisect_left(entries, (score, rank))]
        if not entries:
            del self._sub_queues[sub_queue]
        del self._held[task.key]
        task.place = None
        return True

    def is_poller_expected(self, task: T, now: float) -> bool:
        """Whether a poller that may have the task was seen a moment ago."""
        if self._is_reserved(task, now):
            return True
        required = task.capabilities or self._default
        return any(
            required <= capabilities
            for capabilities, seen in self._seen.items()
            if now - seen <= PRESENCE
        )

    def expire(self, now: float) -> list[P]:
        """Drop what expired, and open to all the tasks whose sticky worker is gone or was too slow.

        To be called about every second. Returns the pollers that were assigned tasks.
        """
        given: list[P] = []
        for task in [task for task in self._held.values() if self._is_due(task, now)]:
            self.withdraw(task)
            if task.expire_at > now and (poller := self.offer(task, now)) is not None:
                given.append(poller)
        self._seen = {
            capabilities: at for capabilities, at in self._seen.items() if now - at <= _FORGET_AFTER
        }
        self._sticky_seen = {
            name: sight
            for name, sight in self._sticky_seen.items()
            if now - sight.at <= _FORGET_AFTER
        }
        return given

    def change_default(self, default: Capabilities, now: float) -> list[P]:
        """Tasks that require nothing by themselves require these from here on, held ones too.

        Returns the pollers that were assigned tasks.
        """
        self._default = default
        given: list[P] = []
        for task in sorted(self._held.values(), key=_rank):
            self.withdraw(task)
            if task.expire_at > now and (poller := self.offer(task, now)) is not None:
                given.append(poller)
        return given

    def _is_due(self, task: T, now: float) -> bool:
        if task.expire_at <= now:
            return True
        is_kept = task.place is not None and task.place[0].sticky_queue != ""
        return is_kept and not self._is_reserved(task, now)

    def _is_reserved(self, task: T, now: float) -> bool:
        return (
            task.sticky_queue != ""
            and now < task.sticky_until
            and self._is_sticky_present(task.sticky_queue, task.capabilities or self._default, now)
        )

    def _is_sticky_present(self, sticky_queue: str, required: Capabilities, now: float) -> bool:
        """Whether a poller of the queue that has what is required waits, or is expected."""
        line = self._sticky_lines.get(sticky_queue)
        if line is not None and (
            not required or any(required <= poller.capabilities for poller in line)
        ):
            return True
        seen = self._sticky_seen.get(sticky_queue)
        return (
            seen is not None and now - seen.at <= STICKY_PRESENCE and required <= seen.capabilities
        )

    def _note_seen(self, poller: P, now: float) -> None:
        self._seen[poller.capabilities] = now
        if poller.sticky_queue:
            self._sticky_seen[poller.sticky_queue] = _Sight(now, poller.capabilities)

    def _pick(self, task: T, now: float) -> P | None:
        required = task.capabilities or self._default
        if self._is_reserved(task, now):
            sticky_line = self._sticky_lines.get(task.sticky_queue, ())
            return next((p for p in sticky_line if required <= p.capabilities), None)
        first: P | None = None
        for capabilities, line in self._lines.items():
            if required <= capabilities:
                poller = next(iter(line))
                if first is None or _turn(poller) < _turn(first):
                    first = poller
        return first

    def _hold(self, task: T, now: float) -> None:
        sticky_queue = task.sticky_queue if self._is_reserved(task, now) else ""
        sub_queue = SubQueue(sticky_queue, task.capabilities)
        rank = next(self._ranks)
        task.place = (sub_queue, task.score, rank)
        insort(self._sub_queues.setdefault(sub_queue, []), (task.score, rank, task))
        self._held[task.key] = task

    def _assign(self, task: T, poller: P) -> None:
        poller.tasks.append(task)
        if len(poller.tasks) < poller.max_tasks:
            # Behind the others, so that tasks that come together are spread over workers.
            self._take_turn(poller)
        else:
            self._drop_from_line(poller)

    def _take_turn(self, poller: P) -> None:
        poller.turn = next(self._turns)
        line = self._lines.setdefault(poller.capabilities, OrderedDict())
        line[poller] = None
        line.move_to_end(poller)
        if poller.sticky_queue:
            line = self._sticky_lines.setdefault(poller.sticky_queue, OrderedDict())
            line[poller] = None
            line.move_to_end(poller)

    def _drop_from_line(self, poller: P) -> None:
        if poller.turn is None:
            return
        poller.turn = None
        line = self._lines[poller.capabilities]
        del line[poller]
        if not line:
            del self._lines[poller.capabilities]
        if poller.sticky_queue:
            line = self._sticky_lines[poller.sticky_queue]
            del line[poller]
            if not line:
                del self._sticky_lines[poller.sticky_queue]


def _rank(task: Task) -> tuple[float, int]:
    assert task.place is not None, "a held task has a place"
    return task.place[1:]


def _turn(poller: WaitingPoll[Any]) -> int:
    assert poller.turn is not None, "a poller in line has a turn"
    return poller.turn


def _head(entries: list[tuple[float, int, T]]) -> tuple[float, int]:
    return entries[0][:2]
