"""The matching service: offers and polls of every queue of this host.

What becomes of an offer is in `offering`, of the tasks that a poll gets in `starter`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from google.protobuf.message import Message

from aetheris.api.v1 import worker_service_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.server.v1.history_service_pb2 import StartedTask
from aetheris.server.v1.matching_service_pb2 import (
    DescribeTaskQueueRequest,
    DescribeTaskQueueResponse,
    NotifyCancellationRequest,
    NotifyCancellationResponse,
    PollActivityTasksRequest,
    PollActivityTasksResponse,
    PollWorkflowTasksRequest,
    PollWorkflowTasksResponse,
    ShutdownWorkerRequest,
    ShutdownWorkerResponse,
    TaskRef,
    UpdateTaskQueueRequest,
    UpdateTaskQueueResponse,
)
from aetheris_server.build_ids import build_capability
from aetheris_server.clock import Clock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.config import MatchingSettings, RedisSettings
from aetheris_server.errors import UnavailableError
from aetheris_server.loops import end_tasks
from aetheris_server.matching.backlog import Backlog, Counts
from aetheris_server.matching.describe import describe
from aetheris_server.matching.lease_ender import LeaseEnder
from aetheris_server.matching.match import NO_CAPABILITIES
from aetheris_server.matching.offering import Offering
from aetheris_server.matching.offers import QueueKey
from aetheris_server.matching.polls import Poll
from aetheris_server.matching.pusher import Pusher
from aetheris_server.matching.queue import TaskQueue
from aetheris_server.matching.starter import Starter, TaskStarter, task_token
from aetheris_server.matching.upkeep import Upkeep
from aetheris_server.rpc import table
from aetheris_server.rpc.peers import LocalMatching
from aetheris_server.rpc.table import MatchingMethod

_PollRequest = (
    worker_service_pb2.PollWorkflowTasksRequest | worker_service_pb2.PollActivityTasksRequest
)

MAX_TASKS = 1_000
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)
_MAX_QUEUES = 100_000
# Longer than the longest step of a poll that is over.
_CLOSE_TIMEOUT = 15.0


@dataclass(frozen=True, slots=True)
class MatchingStatistics:
    """What waits on this host now."""

    poll_count: int
    held_task_count: int


class MatchingService:
    """The queues of one host. An async context manager; nothing works before it is entered.

    Leaving it drains it, waits for the polls under way, and tells Redis what was started.
    """

    def __init__(
        self,
        settings: MatchingSettings,
        redis_settings: RedisSettings,
        history: TaskStarter,
        clock: Clock,
        on_backlog_lost: Callable[[], Awaitable[None]],
        default_builds: DefaultBuilds,
    ) -> None:
        """Args:
        on_backlog_lost: Has history offer again all that is scheduled and not started. Called in
            the background, again until it succeeds, and also when Redis is found empty at the
            start.
        default_builds: Which builds task queues prefer; followed from here on.
        """
        self._settings = settings
        self._clock = clock
        self._default_builds = default_builds
        default_builds.on_changed = self._follow_default_build
        self._is_draining = False
        self._has_poll_ended = asyncio.Event()
        self._queues: dict[QueueKey, TaskQueue] = {}
        self._group = asyncio.TaskGroup()
        self._loops: list[asyncio.Task[None]] = []
        self._backlog = Backlog(redis_settings, settings.lease_timeout, clock)
        self._lease_ender = LeaseEnder(self._backlog, self._learn)
        self._offering = Offering(
            self._open, Pusher(self._backlog, self._group), clock, settings.linger
        )
        self._starter = Starter(history, self._group)
        self._upkeep = Upkeep(self._queues, self._backlog, on_backlog_lost)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        for loop in (self._lease_ender.run, self._upkeep.run_rounds, self._upkeep.run_reports):
            self._loops.append(self._group.create_task(loop(), name=loop.__qualname__))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.begin_drain()
        # Polls that are being served still need the group.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT):
                while self.statistics().poll_count:
                    self._has_poll_ended.clear()
                    await self._has_poll_ended.wait()
        try:
            await end_tasks(self._loops)
            # Without the error: the group would wrap what is not its own.
            await self._group.__aexit__(None, None, None)
        finally:
            await self._lease_ender.flush()
            await self._backlog.close()

    def begin_drain(self) -> None:
        """Answer all polls, those that wait and those to come, with what there is. Tasks offered
        from now on go to the backlog. Again is harmless.
        """
        self._is_draining = True
        self._offering.begin_drain()
        for queue in self._queues.values():
            for poll in queue.polls:
                poll.end()

    def serve(self) -> LocalMatching:
        """What answers each row of the RPC table here."""
        handlers: dict[MatchingMethod[Any, Any], Callable[[Any], Coroutine[Any, Any, Any]]] = {}

        def serve(
            method: MatchingMethod[Q, R], handler: Callable[[Q], Coroutine[Any, Any, R]]
        ) -> None:
            handlers[method] = handler

        serve(table.POLL_WORKFLOW_TASKS, self.poll_workflow_tasks)
        serve(table.POLL_ACTIVITY_TASKS, self.poll_activity_tasks)
        serve(table.NOTIFY_CANCELLATION, self.notify_cancellation)
        serve(table.SHUTDOWN_WORKER, self.shutdown_worker)
        serve(table.DESCRIBE_TASK_QUEUE, self.describe_task_queue)
        serve(table.UPDATE_TASK_QUEUE, self.update_task_queue)
        return LocalMatching(handlers, self.add_tasks)

    async def check_backlog(self) -> str:
        """What is wrong with how Redis is set up, once it answers; empty if nothing is.

        Raises:
            StorageUnavailableError: It does not; tasks still find the polls that wait.
        """
        await self._backlog.ping()
        return await self._backlog.check_setup()

    def statistics(self) -> MatchingStatistics:
        """What waits now."""
        queues = self._queues.values()
        return MatchingStatistics(
            sum(len(queue.polls) for queue in queues),
            sum(queue.held_count for queue in queues),
        )

    async def add_tasks(self, tasks: Sequence[TaskRef]) -> None:
        """See `Offering.add_tasks`."""
        await self._offering.add_tasks(tasks)

    async def poll_workflow_tasks(
        self, request: PollWorkflowTasksRequest
    ) -> PollWorkflowTasksResponse:
        """See `WorkerService.PollWorkflowTasks`; the request has been checked."""
        asked = request.request
        key = QueueKey(request.namespace_id, asked.task_queue, TASK_QUEUE_TYPE_WORKFLOW)
        answer = PollWorkflowTasksResponse()
        queue = self._open_for_poll(key)
        if queue is not None:
            poll = _poll(asked, asked.sticky_task_queue, _with_build(asked))
            started = await self._serve(queue, poll, asked)
            answer.response.tasks.extend(task.workflow_task for task in started)
            self._note_answer(queue, poll, started, ())
        return answer

    async def poll_activity_tasks(
        self, request: PollActivityTasksRequest
    ) -> PollActivityTasksResponse:
        """See `WorkerService.PollActivityTasks`; the request has been checked."""
        asked = request.request
        key = QueueKey(request.namespace_id, asked.task_queue, TASK_QUEUE_TYPE_ACTIVITY)
        answer = PollActivityTasksResponse()
        queue = self._open_for_poll(key)
        if queue is not None:
            poll = _poll(asked, "", asked.capabilities)
            started = await self._serve(queue, poll, asked)
            response = answer.response
            response.tasks.extend(task.activity_task for task in started)
            if not poll.is_abandoned and queue.mailboxes.has_mail(poll.worker_instance_id):
                now = self._clock.monotonic()
                response.cancellations.extend(queue.mailboxes.take(poll.worker_instance_id, now))
            self._note_answer(queue, poll, started, response.cancellations)
        return answer

    async def notify_cancellation(
        self, request: NotifyCancellationRequest
    ) -> NotifyCancellationResponse:
        """Tell a worker, through its current or next poll, to cancel an activity. Best effort."""
        key = QueueKey(request.namespace_id, request.task_queue, TASK_QUEUE_TYPE_ACTIVITY)
        if request.worker_instance_id:
            self._open(key).post(request.worker_instance_id, request.cancellation)
        return NotifyCancellationResponse()

    async def shutdown_worker(self, request: ShutdownWorkerRequest) -> ShutdownWorkerResponse:
        """See `WorkerService.ShutdownWorker`, for one side of a queue."""
        worker = request.request
        key = QueueKey(request.namespace_id, worker.task_queue, request.task_queue_type)
        queue = self._queues.get(key)
        if queue is None:
            return ShutdownWorkerResponse()
        is_workflow = key.task_queue_type == TASK_QUEUE_TYPE_WORKFLOW
        received_number = (
            worker.received_workflow_poll_number
            if is_workflow
            else worker.received_activity_poll_number
        )
        queue.dismiss(worker.worker_instance_id, worker.sticky_task_queue if is_workflow else "")
        lost = queue.answered.take_lost(worker.worker_instance_id, received_number)
        if lost is not None:
            self._starter.release(lost.task_tokens)
        return ShutdownWorkerResponse()

    async def describe_task_queue(
        self, request: DescribeTaskQueueRequest
    ) -> DescribeTaskQueueResponse:
        """See `OperatorService.DescribeTaskQueue`.

        Raises:
            StorageUnavailableError: Redis does not answer.
        """
        asked = request.request
        key = QueueKey(request.namespace_id, asked.task_queue, asked.task_queue_type)
        backlog = await self._backlog.describe(key)
        found = describe(self._open(key), backlog, self._clock.now().timestamp())
        return DescribeTaskQueueResponse(response=found)

    async def update_task_queue(self, request: UpdateTaskQueueRequest) -> UpdateTaskQueueResponse:
        """See `OperatorService.UpdateTaskQueue`.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        asked = request.request
        queue = request.namespace_id, asked.task_queue
        await self._default_builds.change(*queue, asked.default_build_id, asked.request_id)
        answer = UpdateTaskQueueResponse()
        answer.response.default_build_id = self._default_builds.find(*queue)
        return answer

    def _open(self, key: QueueKey) -> TaskQueue:
        queue = self._queues.get(key)
        if queue is None:
            if len(self._queues) >= _MAX_QUEUES:
                raise UnavailableError(f"{_MAX_QUEUES} task queues are in memory already")
            queue = self._queues[key] = TaskQueue(
                key,
                self._backlog,
                self._lease_ender,
                self._clock,
                self._group,
                self._default_build_of(key),
            )
        return queue

    def _default_build_of(self, key: QueueKey) -> str:
        if key.task_queue_type != TASK_QUEUE_TYPE_WORKFLOW:
            return ""
        return self._default_builds.find(key.namespace_id, key.task_queue)

    def _follow_default_build(self, queue_name: tuple[str, str]) -> None:
        key = QueueKey(*queue_name, TASK_QUEUE_TYPE_WORKFLOW)
        queue = self._queues.get(key)
        if queue is not None:
            queue.change_default_build(self._default_build_of(key))

    def _open_for_poll(self, key: QueueKey) -> TaskQueue | None:
        if self._is_draining:
            return None
        queue = self._open(key)
        if not queue.backlog.is_known:
            self._upkeep.hurry()
        return queue

    async def _serve(
        self, queue: TaskQueue, poll: Poll, request: _PollRequest
    ) -> Sequence[StartedTask]:
        queue.begin(poll)
        timer = asyncio.get_running_loop().call_later(self._poll_timeout(request), poll.end)
        try:
            if poll.number and not poll.is_abandoned:
                self._return_lost(queue, poll, request.received_poll_number)
            while tasks := await queue.take_tasks(poll):
                if started := await self._starter.start(queue, poll, tasks):
                    return started
            return ()
        finally:
            timer.cancel()
            queue.end(poll)
            if self._is_draining:
                self._has_poll_ended.set()

    def _note_answer(
        self,
        queue: TaskQueue,
        poll: Poll,
        started: Sequence[StartedTask],
        cancellations: Sequence[worker_service_pb2.ActivityCancellation],
    ) -> None:
        if poll.number:
            tokens = [task_token(task) for task in started]
            queue.answered.note(poll, tokens, tuple(cancellations), self._clock.monotonic())

    def _return_lost(self, queue: TaskQueue, poll: Poll, received_number: int) -> None:
        """Give to others, or again to the worker, what a poll before this one did not bring it."""
        lost = queue.answered.take_lost(poll.worker_instance_id, received_number)
        if lost is not None:
            self._starter.release(lost.task_tokens)
            for cancellation in lost.cancellations:
                queue.post(poll.worker_instance_id, cancellation)

    def _learn(self, key: QueueKey, counts: Counts) -> None:
        queue = self._queues.get(key)
        if queue is not None:
            queue.learn(counts)

    def _poll_timeout(self, request: _PollRequest) -> float:
        asked = request.poll_timeout.seconds + request.poll_timeout.nanos * 1e-9
        return min(asked, self._settings.poll_timeout)


def _with_build(request: worker_service_pb2.PollWorkflowTasksRequest) -> Sequence[str]:
    if not request.worker_version:
        return request.capabilities
    return (*request.capabilities, build_capability(request.worker_version))


def _poll(request: _PollRequest, sticky_queue: str, capabilities: Sequence[str]) -> Poll:
    return Poll(
        frozenset(capabilities) if capabilities else NO_CAPABILITIES,
        sticky_queue,
        min(max(1, request.max_tasks), MAX_TASKS),
        request.identity,
        request.worker_instance_id,
        request.worker_version,
        request.poll_number,
    )
