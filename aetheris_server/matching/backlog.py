"""The backlog of task queues in Redis: the tasks that found no poller.

A waiting task is in one sub-queue, named by its sticky queue and its required capabilities; which
sub-queues there are can be read from Redis alone. A task that is popped is leased: it comes back
unless it is acknowledged in time. Redis is a hint: what is lost with it is offered again by history
(see epoch.py), and a task that is in it twice is refused there.

Left to others: who pops what, and when.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import quote

import orjson

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.clock import Clock
from aetheris_server.config import RedisSettings
from aetheris_server.matching.epoch import Epoch
from aetheris_server.matching.match import SubQueue
from aetheris_server.matching.scripts import Script, ScriptCall, Scripts
from aetheris_server.matching.tasks import QueuedTask, QueueKey, sticky_remaining

POSTPONE_SECONDS = 1.0
"""Seconds after which a task that history could not start comes back."""

_MAX_REAPED = 1_000
_MAX_PUSHED = 1_000

Counts = Mapping[SubQueue, int]
"""Waiting tasks by sub-queue; of one that is not in it nothing is said."""


@dataclass(frozen=True, slots=True)
class Popped:
    """References with their leases, lowest score first, and what the sub-queues have left."""

    leased: Sequence[tuple[str, TaskRef]]
    counts: Counts


@dataclass(slots=True)
class Settlement:
    """What became of leases of one queue: the tasks are started or gone, were not taken, or could
    not be started now.
    """

    done: list[str] = field(default_factory=list[str])
    returned: list[str] = field(default_factory=list[str])
    postponed: list[str] = field(default_factory=list[str])


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
        self._key_prefix = settings.key_prefix
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

    async def push(
        self, tasks: Mapping[QueueKey, Sequence[QueuedTask]]
    ) -> Mapping[QueueKey, Counts]:
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
        answers = await self._run(Script.PUSH, calls)
        for (queue, _), answer in zip(calls, answers, strict=True):
            counts[queue].update(_counts(answer))
        return counts

    async def pop(self, queue: QueueKey, sub_queues: Sequence[SubQueue], max_tasks: int) -> Popped:
        """Lease the tasks with the lowest scores, at most `max_tasks`, of some sub-queues."""
        names = [_name(sub_queue) for sub_queue in sub_queues]
        arguments = [max_tasks, self._lease_timeout, secrets.token_hex(8), *names]
        [(flat, counts)] = await self._run(Script.POP, [(queue, arguments)])
        leased = [
            (flat[i].decode(), TaskRef.FromString(flat[i + 1])) for i in range(0, len(flat), 2)
        ]
        return Popped(leased, _counts(counts))

    async def settle(self, settlements: Mapping[QueueKey, Settlement]) -> Mapping[QueueKey, Counts]:
        """End leases, in one round trip; what the sub-queues that got tasks back have then."""
        calls = [
            (
                queue,
                [
                    POSTPONE_SECONDS,
                    len(settlement.done),
                    len(settlement.returned),
                    *settlement.done,
                    *settlement.returned,
                    *settlement.postponed,
                ],
            )
            for queue, settlement in settlements.items()
        ]
        answers = await self._run(Script.SETTLE, calls)
        return {queue: _counts(answer) for queue, answer in zip(settlements, answers, strict=True)}

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
        return f"{{{self._key_prefix}:{queue.namespace_id}:{name}:{queue.task_queue_type}}}"


def _push_arguments(task: QueuedTask, wall_now: float) -> tuple[str | bytes | float, ...]:
    shared = _name(SubQueue("", task.capabilities))
    sticky_seconds = 0.0
    name = shared
    if task.sticky_queue:
        sticky_seconds = sticky_remaining(task.ref, task.score, wall_now)
        if sticky_seconds > 0:
            name = _name(SubQueue(task.sticky_queue, task.capabilities))
    return task.key, name, shared, repr(task.score), sticky_seconds, task.ref.SerializeToString()


def _name(sub_queue: SubQueue) -> bytes:
    return orjson.dumps([sub_queue.sticky_queue, *sorted(sub_queue.capabilities)])


def _sub_queue(name: bytes) -> SubQueue:
    sticky_queue, *capabilities = cast("list[str]", orjson.loads(name))
    return SubQueue(sticky_queue, frozenset(capabilities))


def _counts(flat: Sequence[Any]) -> dict[SubQueue, int]:
    return {_sub_queue(flat[i]): flat[i + 1] for i in range(0, len(flat), 2)}
