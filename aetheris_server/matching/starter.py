"""Asks history for what tasks are about, on behalf of one poll.

Invariant: a task that history says it started either reaches the poll or is released. So the
question outlives a poll that goes away while it is asked.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol, assert_never

from aetheris.server.v1.history_service_pb2 import (
    StartedTask,
    StartTasksRequest,
    StartTasksResponse,
)
from aetheris_server.errors import UnavailableError
from aetheris_server.matching.offers import QueuedTask
from aetheris_server.matching.polls import Poll
from aetheris_server.matching.queue import TaskQueue
from aetheris_server.rpc.peers import START_TIMEOUT
from aetheris_server.rpc.undelivered import TaskReleaser, release_undelivered
from aetheris_server.telemetry import get_logger

_START_TIMEOUT = START_TIMEOUT + 2.0

_log = get_logger(__name__)


class TaskStarter(TaskReleaser, Protocol):
    """What matching asks of history: two methods of `HistoryPeer`."""

    async def start_tasks(self, request: StartTasksRequest) -> StartTasksResponse:
        """See `HistoryPeer.start_tasks`."""
        ...


class Starter:
    """Starts tasks and settles what became of each."""

    def __init__(self, history: TaskStarter, group: asyncio.TaskGroup) -> None:
        self._history = history
        self._group = group

    async def start(
        self, queue: TaskQueue, poll: Poll, tasks: Sequence[QueuedTask]
    ) -> list[StartedTask]:
        """Start n >= 1 tasks for a poll; those that history started, in order, maybe none. Where
        the poll is abandoned meanwhile they are released.
        """
        start = self._group.create_task(self._start(queue, poll, tasks))
        try:
            started = await asyncio.shield(start)
        except asyncio.CancelledError:
            # Whether or not history has answered: `start` or this sees that it is released.
            poll.is_abandoned = True
            if start.done() and not start.cancelled():
                self._abandon(start.result())
            raise
        if poll.is_abandoned:
            self._abandon(started)
            return []
        return started

    def release(self, task_tokens: Sequence[bytes]) -> None:
        """Have history take back tasks that did not reach their worker."""
        if task_tokens:
            self._group.create_task(release_undelivered(self._history, task_tokens))

    async def _start(
        self, queue: TaskQueue, poll: Poll, tasks: Sequence[QueuedTask]
    ) -> list[StartedTask]:
        request = StartTasksRequest(
            tasks=[task.ref for task in tasks],
            identity=poll.identity,
            worker_instance_id=poll.worker_instance_id,
            sticky_task_queue=poll.sticky_queue,
            worker_version=poll.worker_version,
        )
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                response = await self._history.start_tasks(request)
        except (UnavailableError, TimeoutError) as error:
            _log.warning("tasks could not be started", tasks=len(tasks), error=repr(error))
            response = None
        except Exception:  # noqa: BLE001 - history's fault must not end the polls of others
            _log.exception("tasks could not be started", tasks=len(tasks))
            response = None
        if response is None or len(response.tasks) != len(tasks):
            for task in tasks:
                queue.retry(task)
            return []
        started = _settle(queue, tasks, response.tasks)
        if poll.is_abandoned:
            self._abandon(started)
            return []
        return started

    def _abandon(self, started: Sequence[StartedTask]) -> None:
        self.release([task_token(task) for task in started])


def _settle(
    queue: TaskQueue, tasks: Sequence[QueuedTask], outcomes: Sequence[StartedTask]
) -> list[StartedTask]:
    started: list[StartedTask] = []
    for task, outcome in zip(tasks, outcomes, strict=True):
        kind = outcome.WhichOneof("outcome")
        match kind:
            case "workflow_task" | "activity_task":
                started.append(outcome)
                queue.counts.sync_matches += task.lease is None
                queue.counts.repairs += task.lease is None and task.ref.is_repeated
                queue.finish(task)
            case "gone":
                queue.finish(task)
            case "retry" | None:
                queue.retry(task)
            case _:
                assert_never(kind)
    return started


def task_token(started: StartedTask) -> bytes:
    """The token of a task that history started."""
    if started.HasField("workflow_task"):
        return started.workflow_task.task_token
    return started.activity_task.task_token
