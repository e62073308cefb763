"""A history for matching alone, and the references it offers."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.api.v1.worker_service_pb2 import (
    ActivityTask,
    PollActivityTasksRequest,
    PollWorkflowTasksRequest,
    WorkflowTask,
)
from aetheris.server.v1.history_service_pb2 import (
    StartedTask,
    StartTasksRequest,
    StartTasksResponse,
    TaskGone,
    TaskRetry,
)
from aetheris.server.v1.matching_service_pb2 import TaskRef

NAMESPACE_ID = "11111111-1111-1111-1111-111111111111"


class FakeHistory:
    """Starts each reference once, as a real history does; after that it is gone.

    Attributes:
        started: Run ids, in the order of starts.
        requests: All start requests.
        released: Tokens of released tasks; a token is the run id.
        retry_count: So many of the next outcomes are `retry`.
        gate: If set, starts wait for it, after they have started their tasks.
        on_release: Called with each released token.
    """

    def __init__(self) -> None:
        self.started: list[str] = []
        self.requests: list[StartTasksRequest] = []
        self.released: list[str] = []
        self.retry_count = 0
        self.gate: asyncio.Event | None = None
        self.on_release: Callable[[str], object] = self.released.append
        self._done: set[str] = set()

    async def start_tasks(self, request: StartTasksRequest) -> StartTasksResponse:
        self.requests.append(request)
        response = StartTasksResponse(tasks=[self._start(ref) for ref in request.tasks])
        if self.gate is not None:
            await self.gate.wait()
        return response

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        for token in task_tokens:
            self._done.discard(token.decode())
            self.on_release(token.decode())

    def not_started(self, run_ids: Sequence[str]) -> list[str]:
        return [run_id for run_id in run_ids if run_id not in self._done]

    def _start(self, ref: TaskRef) -> StartedTask:
        if self.retry_count:
            self.retry_count -= 1
            return StartedTask(retry=TaskRetry())
        if ref.run_id in self._done:
            return StartedTask(gone=TaskGone())
        self._done.add(ref.run_id)
        self.started.append(ref.run_id)
        token = ref.run_id.encode()
        if ref.task_queue_type == TASK_QUEUE_TYPE_WORKFLOW:
            return StartedTask(workflow_task=WorkflowTask(task_token=token))
        return StartedTask(activity_task=ActivityTask(task_token=token))


def activity_ref(
    run_id: str,
    *capabilities: str,
    task_queue: str = "q",
    age: float = 0.0,
) -> TaskRef:
    ref = TaskRef(
        namespace_id=NAMESPACE_ID,
        workflow_id="w",
        run_id=run_id,
        task_queue_type=TASK_QUEUE_TYPE_ACTIVITY,
        task_queue=task_queue,
        scheduled_event_id=5,
        attempt=1,
        capabilities=sorted(capabilities),
    )
    ref.scheduled_time.FromDatetime(datetime.now(UTC) - timedelta(seconds=age))
    return ref


def workflow_ref(
    run_id: str,
    *,
    sticky_task_queue: str = "",
    sticky_timeout: float = 10.0,
    query_id: str = "",
    expire_in: float = 10.0,
) -> TaskRef:
    ref = activity_ref(run_id)
    ref.task_queue_type = TASK_QUEUE_TYPE_WORKFLOW
    if sticky_task_queue:
        ref.sticky_task_queue = sticky_task_queue
        ref.sticky_timeout.FromTimedelta(timedelta(seconds=sticky_timeout))
    if query_id:
        ref.query_id = query_id
        ref.expire_time.FromDatetime(datetime.now(UTC) + timedelta(seconds=expire_in))
    return ref


def activity_poll(
    *capabilities: str,
    task_queue: str = "q",
    max_tasks: int = 1,
    worker: str = "worker",
    poll_timeout: float = 10.0,
    number: int = 0,
    received_number: int = 0,
) -> PollActivityTasksRequest:
    request = PollActivityTasksRequest(
        poll_number=number,
        received_poll_number=received_number,
        task_queue=task_queue,
        max_tasks=max_tasks,
        capabilities=capabilities,
        identity=worker,
        worker_instance_id=worker,
    )
    request.poll_timeout.FromTimedelta(timedelta(seconds=poll_timeout))
    return request


def workflow_poll(
    *, sticky_task_queue: str = "", max_tasks: int = 1, poll_timeout: float = 10.0
) -> PollWorkflowTasksRequest:
    request = PollWorkflowTasksRequest(
        task_queue="q",
        sticky_task_queue=sticky_task_queue,
        max_tasks=max_tasks,
        identity=f"worker of {sticky_task_queue or 'all'}",
        worker_instance_id=sticky_task_queue or "worker",
    )
    request.poll_timeout.FromTimedelta(timedelta(seconds=poll_timeout))
    return request
