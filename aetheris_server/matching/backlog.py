"""The backlog of task queues in Redis: the tasks that found no poller.

A waiting task is in one sub-queue, named by its sticky queue and its required capabilities; which
sub-queues there are can be read from Redis alone. A task that is popped is leased: it comes back
unless it is acknowledged in time. Redis is a hint: what is lost with it, as a whole (epoch.py) or
key by key (backlog_view.py), is offered again by history, and a task that is in it twice is refused
there.

Left to others: who pops what, and when.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast
from urllib.parse import quote, unquote

import orjson

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.clock import Clock
from aetheris_server.config import RedisSettings
from aetheris_server.matching.epoch import Epoch
from aetheris_server.matching.match import SubQueue
from aetheris_server.matching.offers import QueuedTask, QueueKey, TaskLease, sticky_remaining
from aetheris_server.matching.redis_scripts import Script, ScriptCall, Scripts

POSTPONE_SECONDS = 1.0
"""Seconds after which a task that history could not start comes back."""

_MAX_REAPED = 1_000
_MAX_PUSHED = 1_000

Counts = Mapping[SubQueue, int]
"""Waiting tasks by sub-queue; of one that is not in it nothing is said."""


@dataclass(frozen=True, slots=True)
class Pushed:
    """How many of the tasks that were offered before were missing, and what there is now."""

    repair_count: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Popped:
    """References with their leases, lowest score first, and what the sub-queues have left."""

    leased: Sequence[tuple[TaskLease, TaskRef]]
    counts: Counts


@dataclass(slots=True)
class LeaseEnds:
    """What became of leases of one queue: the tasks are started or gone, were not taken, or could
    not be started now.
    """

    done: list[TaskLease] = field(default_factory=list[TaskLease])
    returned: list[TaskLease] = field(default_factory=list[TaskLease])
    postponed: list[TaskLease] = field(default_factory=list[TaskLease])


@dataclass(frozen=True, slots=True)
class Inspection:
    """A queue's backlog: tasks that came back just now, tasks in flight, and all waiting ones."""

    returned_count: int
    in_flight_count: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class SubQueueState:
    """One sub-queue. `oldest_score` is None if no task waits."""

    sub_queue: SubQueue
    waiting_count: int
    oldest_score: float | None
    in_flight_count: int


class Backlog:
    """All queues' tasks in one Redis. Every method raises StorageUnavailableError if it does not
    answer; then the call may have been carried out or not, and may be repeated.
    """

    def __init__(self, settings: RedisSettings, lease_timeout: float, clock: Clock) -> None:
        self._scripts = Scripts(settings)
        self._lease_timeout = lease_timeout
        self._clock = clock
        self.epoch = Epoch(self._scripts)

    async def close(self) -> None:
        """Close the connections."""
        await self._scripts.close()

    async def ping(self) -> None:
        """Return when Redis answers.

        Raises:
            StorageUnavailableError: It does not.
        """
        await self._scripts.run([])

    async def check_setup(self) -> str:
        """What is wrong with how Redis is set up; empty if nothing is.

        Raises:
            StorageUnavailableError: Redis does not answer.
        """
        policy = await self._scripts.load_eviction()
        if policy is None:
            return "redis does not tell its maxmemory-policy; it must be noeviction"
        if policy:
            return (
                f"redis removes tasks when its memory is full: maxmemory-policy is {policy},"
                " expected noeviction; what it removes waits until it is offered again"
            )
        return ""

    async def push(
        self, tasks: Mapping[QueueKey, Sequence[QueuedTask]]
    ) -> Mapping[QueueKey, Pushed]:
        """Queue tasks, in one round trip; what the sub-queues touched have then."""
        wall_now = self._clock.now().timestamp()
        calls: list[tuple[QueueKey, Sequence[Any]]] = []
        for queue, queued in tasks.items():
            for start in range(0, len(queued), _MAX_PUSHED):
                arguments: list[str | bytes | float] = []
                for task in queued[start : start + _MAX_PUSHED]:
                    arguments.extend(_push_arguments(task, wall_now))
                calls.append((queue, arguments))
        counts: dict[QueueKey, dict[SubQueue, int]] = {queue: {} for queue in tasks}
        repairs = dict.fromkeys(tasks, 0)
        answers = await self._run(Script.PUSH, calls)
        for (queue, _), (repaired, flat) in zip(calls, answers, strict=True):
            repairs[queue] += repaired
            counts[queue].update(_counts(flat))
        return {queue: Pushed(repairs[queue], counts[queue]) for queue in tasks}

    async def pop(self, queue: QueueKey, sub_queues: Sequence[SubQueue], max_tasks: int) -> Popped:
        """Lease the tasks with the lowest scores, at most `max_tasks`, of some sub-queues."""
        names = [_name(sub_queue) for sub_queue in sub_queues]
        arguments = [max_tasks, self._lease_timeout, *names]
        [(flat, counts)] = await self._run(Script.POP, [(queue, arguments)])
        leases = [TaskLease(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]
        return Popped([(lease, _ref(lease.task)) for lease in leases], _counts(counts))

    async def end_leases(self, ends: Mapping[QueueKey, LeaseEnds]) -> Mapping[QueueKey, Counts]:
        """End leases, in one round trip; what the sub-queues touched have then."""
        calls = [
            (
                queue,
                [
                    POSTPONE_SECONDS,
                    len(of_queue.done),
                    len(of_queue.returned),
                    *chain.from_iterable(of_queue.done),
                    *chain.from_iterable(of_queue.returned),
                    *chain.from_iterable(of_queue.postponed),
                ],
            )
            for queue, of_queue in ends.items()
        ]
        answers = await self._run(Script.END_LEASES, calls)
        return {queue: _counts(answer) for queue, answer in zip(ends, answers, strict=True)}

    async def inspect(self, queues: Sequence[QueueKey]) -> Mapping[QueueKey, Inspection]:
        """Take back tasks whose lease has expired, open sticky ones whose time is over to all
        pollers, and report, in one round trip. To be called about every second.
        """
        answers = await self._run(Script.INSPECT, [(queue, [_MAX_REAPED]) for queue in queues])
        return {
            queue: Inspection(returned, in_flight, _counts(counts))
            for queue, (returned, in_flight, counts) in zip(queues, answers, strict=True)
        }

    async def describe(self, queue: QueueKey) -> Sequence[SubQueueState]:
        """Look at a queue; writes nothing."""
        [flat] = await self._run(Script.DESCRIBE, [(queue, [])])
        return [
            SubQueueState(
                _sub_queue(flat[i]),
                flat[i + 1],
                float(flat[i + 2]) if flat[i + 2] else None,
                flat[i + 3],
            )
            for i in range(0, len(flat), 4)
        ]

    async def _run(
        self, script: Script, calls: Sequence[tuple[QueueKey, Sequence[Any]]]
    ) -> list[Any]:
        answers, epoch = await self._scripts.run(
            [ScriptCall(script, self._base(queue), arguments) for queue, arguments in calls]
        )
        self.epoch.observe(epoch)
        return answers

    def _base(self, queue: QueueKey) -> str:
        # Quoted, so that no name can close the hash tag or run into another queue's keys.
        name = quote(queue.task_queue, safe="")
        return f"{{{self._scripts.key_prefix}:{queue.namespace_id}:{name}:{queue.task_queue_type}}}"


def _push_arguments(task: QueuedTask, wall_now: float) -> tuple[str | bytes | float, ...]:
    sub_queue, sticky_seconds = SubQueue("", task.capabilities), 0.0
    if task.sticky_queue:
        sticky_seconds = sticky_remaining(task.ref, task.score, wall_now)
        if sticky_seconds > 0:
            sub_queue = SubQueue(task.sticky_queue, task.capabilities)
    return _name(sub_queue), sticky_seconds, int(task.ref.is_repeated), _stored(task)


def _stored(task: QueuedTask) -> bytes:
    """The same bytes whenever the task is offered: what may change between offers is left out."""
    ref = task.ref
    if ref.sticky_task_queue or ref.is_repeated:
        ref = TaskRef()
        ref.CopyFrom(task.ref)
        for name in ("sticky_task_queue", "sticky_timeout", "is_repeated"):
            ref.ClearField(name)
    return f"{task.score!r} ".encode() + ref.SerializeToString(deterministic=True)


def _ref(stored: bytes) -> TaskRef:
    return TaskRef.FromString(stored.partition(b" ")[2])


def _name(sub_queue: SubQueue) -> bytes:
    sticky_queue = quote(sub_queue.sticky_queue, safe="").encode()
    return b"%b %b" % (sticky_queue, orjson.dumps(sorted(sub_queue.capabilities)))


def _sub_queue(name: bytes) -> SubQueue:
    sticky_queue, _, capabilities = name.partition(b" ")
    return SubQueue(
        unquote(sticky_queue.decode()), frozenset(cast("list[str]", orjson.loads(capabilities)))
    )


def _counts(flat: Sequence[Any]) -> dict[SubQueue, int]:
    return {_sub_queue(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}
