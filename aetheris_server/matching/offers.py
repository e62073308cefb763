"""Tasks on their way to a poller, and the calls that offered them.

Whoever offered a task answers for it until it is started, known to be gone, or in the backlog: an
`Offer` is what such a call waits on. A task from the backlog is covered by its lease instead, and a
query by whoever asked it.
"""

import asyncio
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import NotReadyError, UnavailableError
from aetheris_server.matching.match import NO_CAPABILITIES, Task

_STICKY_TIMEOUT = 10.0


class QueueKey(NamedTuple):
    """Names one side of a task queue; `task_queue_type` is a `TaskQueueType`."""

    namespace_id: str
    task_queue: str
    task_queue_type: int


class TaskLease(NamedTuple):
    """A task that was popped from the backlog: where from, and what, as Redis has it."""

    sub_queue: bytes
    task: bytes


class Offer:
    """What one call still has to see through. For one waiter.

    Attributes:
        is_abandoned: The call has ended without seeing all through, and its caller knows.
    """

    __slots__ = ("_error", "_is_lingering", "_loss", "_open", "_waiter", "_waiting", "is_abandoned")

    def __init__(self) -> None:
        self.is_abandoned = False
        self._open = 0
        self._waiting: dict[QueuedTask, None] = {}
        self._waiter: asyncio.Future[None] | None = None
        self._is_lingering = False
        self._error: UnavailableError | None = None
        self._loss: UnavailableError | None = None

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to see through.

        Raises:
            UnavailableError: One of the tasks could not be brought to safety.
        """
        if self._error is not None:
            raise self._error
        if self._open == 0 and self._loss is not None:
            raise self._loss
        return self._open == 0

    @property
    def waiting(self) -> Iterable["QueuedTask"]:
        """The tasks that are held for pollers to come, oldest offer first."""
        return self._waiting

    def add(self) -> None:
        """One more task to see through."""
        self._open += 1

    def hold(self, task: "QueuedTask") -> None:
        """A task waits in memory: no poller took it, or the one that did disappeared."""
        self._waiting[task] = None
        if not self._is_lingering:
            self._wake()

    def release(self, task: "QueuedTask") -> None:
        """A task no longer waits in memory; it is not settled by that."""
        self._waiting.pop(task, None)

    def settle(self, task: "QueuedTask") -> None:
        """A task is started, gone, in the backlog, or another offer's."""
        self._waiting.pop(task, None)
        self._open -= 1
        if self._open == 0:
            self._wake()

    def lose(self, task: "QueuedTask", error: UnavailableError) -> None:
        """The backlog did not take a task; the others, which may need none, are seen through."""
        self._loss = error
        self.settle(task)

    def fail(self, error: UnavailableError) -> None:
        """A task could not be brought to safety, and is forgotten here."""
        self._error = error
        self._wake()

    async def wait(self, linger: float | None = None) -> None:
        """Wait until all is settled, one has failed, or `linger` seconds are over; without
        `linger`, also until a task is held.
        """
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._is_lingering = linger is not None
        timer = None if linger is None else loop.call_later(linger, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class QueuedTask(Task):
    """A task reference on its way to a poller.

    Attributes:
        ref: The reference.
        offer: The call that answers for it; None for a query and for a task from the backlog.
        lease: Its lease on the backlog; None if it does not come from there.
        retry_count: How often history could not start it.
    """

    __slots__ = ("lease", "offer", "ref", "retry_count")

    def __init__(
        self,
        ref: TaskRef,
        offer: Offer | None,
        lease: TaskLease | None,
        wall_now: float,
        now: float,
    ) -> None:
        """Args:
        wall_now: Seconds since the epoch, as the times in `ref`.
        now: The same moment on the monotonic clock, as the times that matching compares.
        """
        score = _seconds(ref.scheduled_time) if ref.HasField("scheduled_time") else wall_now
        super().__init__(
            task_key(ref),
            score,
            frozenset(ref.capabilities) if ref.capabilities else NO_CAPABILITIES,
            ref.sticky_task_queue,
            now + sticky_remaining(ref, score, wall_now) if ref.sticky_task_queue else inf,
            now + _seconds(ref.expire_time) - wall_now if ref.query_id else inf,
        )
        self.ref = ref
        self.offer = offer
        self.lease = lease
        self.retry_count = 0

    def fail(self) -> None:
        """Give up on it: whoever answers for it must offer it again."""
        if self.offer is not None:
            self.offer.fail(NotReadyError(f"history, for the task {self.key}"))


def task_key(ref: TaskRef) -> str:
    """What makes two references the same task of a queue. Run ids are unique among namespaces."""
    if ref.query_id:
        return f"query/{ref.query_id}"
    return f"{ref.run_id}/{ref.scheduled_event_id}/{ref.attempt}"


def queue_key(ref: TaskRef) -> QueueKey:
    """The queue a reference belongs to."""
    return QueueKey(ref.namespace_id, ref.task_queue, ref.task_queue_type)


def sticky_remaining(ref: TaskRef, scheduled: float, wall_now: float) -> float:
    """Seconds for which a task is kept for its sticky worker, whatever the wall clocks say."""
    timeout = _seconds(ref.sticky_timeout) if ref.HasField("sticky_timeout") else _STICKY_TIMEOUT
    return min(timeout, max(0.0, scheduled + timeout - wall_now))


def _seconds(value: Timestamp | Duration) -> float:
    return value.seconds + value.nanos * 1e-9
