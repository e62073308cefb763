"""A server that gives a worker the tasks that a test has put there, and keeps its answers."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aetheris.api.v1.common_pb2 import Payloads, WorkflowExecution, WorkflowType
from aetheris.api.v1.history_pb2 import History
from aetheris.api.v1.worker_service_pb2 import (
    ActivityTask,
    PollActivityTasksRequest,
    PollActivityTasksResponse,
    PollWorkflowTasksRequest,
    PollWorkflowTasksResponse,
    RespondTasksRequest,
    RespondTasksResponse,
    ShutdownWorkerResponse,
    TaskAnswer,
    TaskAnswerResult,
    WorkflowTask,
)
from aetheris.api.v1.workflow_service_pb2 import (
    GetWorkflowHistoryRequest,
    GetWorkflowHistoryResponse,
)
from aetheris_client.converter import DataConverter
from aetheris_worker import Worker
from tests.support.canned_server import CannedServer
from tests.support.history_builder import HistoryBuilder
from tests.support.wait import wait_until


class TaskServer:
    """Queues of tasks. An answer gets the next result of its kind, or an empty one."""

    def __init__(self) -> None:
        self.canned = CannedServer()
        self.workflow_tasks: asyncio.Queue[WorkflowTask] = asyncio.Queue()
        self.activity_polls: asyncio.Queue[PollActivityTasksResponse] = asyncio.Queue()
        self.answers: list[TaskAnswer] = []
        self.results: dict[str, list[TaskAnswerResult]] = {}
        self.histories: dict[str, HistoryBuilder] = {}
        self.canned.on("PollWorkflowTasks", self._poll_workflow_tasks)
        self.canned.on("PollActivityTasks", self._poll_activity_tasks)
        self.canned.on("RespondTasks", self.respond)
        self.canned.on("ShutdownWorker", ShutdownWorkerResponse())
        self.canned.on("GetWorkflowHistory", self._get_history)

    def add_activity(self, activity_type: str, *arguments: Any, **fields: Any) -> ActivityTask:
        """An activity task for the next poll."""
        task = ActivityTask(task_token=activity_type.encode(), attempt=1, scheduled_event_id=5)
        task.activity_type.name = activity_type
        task.workflow_execution.CopyFrom(WorkflowExecution(workflow_id="w", run_id="run-1"))
        payloads = DataConverter.default().to_payloads(arguments)
        if payloads is not None:
            task.input.CopyFrom(payloads)
        task.MergeFrom(ActivityTask(**fields))
        self.activity_polls.put_nowait(PollActivityTasksResponse(tasks=[task]))
        return task

    def result_of(self, kind: str, **fields: Any) -> None:
        """What the next answer of this kind gets, for example `activity_task_completed`."""
        self.results.setdefault(kind, []).append(TaskAnswerResult(**fields))

    def task_of(self, history: HistoryBuilder, from_event_id: int = 1) -> WorkflowTask:
        """The workflow task that the history ends with."""
        self.histories[history.run_id] = history
        started = [event for event in history.events if event.event_type == 6]
        previous = 0 if from_event_id == 1 else from_event_id - 1
        return WorkflowTask(
            task_token=b"task",
            workflow_execution=WorkflowExecution(workflow_id="w", run_id=history.run_id),
            workflow_type=WorkflowType(
                name=history.events[
                    0
                ].workflow_execution_started_event_attributes.workflow_type.name
            ),
            previous_started_event_id=previous,
            started_event_id=started[-1].event_id,
            attempt=1,
            history=History(events=history.events[from_event_id - 1 :]),
        )

    async def wait_answer(self, count: int = 1) -> TaskAnswer:
        """The answer of that number, once it is there."""
        await wait_until(lambda: len(self.answers) >= count, what=f"{count} answers")
        return self.answers[count - 1]

    async def _poll_workflow_tasks(self, _: PollWorkflowTasksRequest) -> PollWorkflowTasksResponse:
        return PollWorkflowTasksResponse(tasks=[await self.workflow_tasks.get()])

    async def _poll_activity_tasks(self, _: PollActivityTasksRequest) -> PollActivityTasksResponse:
        return await self.activity_polls.get()

    async def respond(self, request: RespondTasksRequest) -> RespondTasksResponse:
        """Keep the answers, and take them."""
        response = RespondTasksResponse()
        for answer in request.answers:
            kind = answer.WhichOneof("answer")
            assert kind is not None
            waiting = self.results.get(kind)
            result = waiting.pop(0) if waiting else TaskAnswerResult()
            if not waiting and result.WhichOneof("result") is None:
                getattr(result, kind).SetInParent()
            response.results.append(result)
            self.answers.append(answer)
        return response

    async def _get_history(self, request: GetWorkflowHistoryRequest) -> GetWorkflowHistoryResponse:
        events = self.histories[request.workflow_execution.run_id].events
        begin = int(request.page_token or b"0")
        # Small pages; and what belongs to the task in hand is not written yet.
        page = events[begin : begin + 3]
        token = str(begin + 3).encode() if begin + 3 < len(events) else b""
        return GetWorkflowHistoryResponse(history=History(events=page), next_page_token=token)


@asynccontextmanager
async def working(server: TaskServer, **options: Any) -> AsyncGenerator[Worker]:
    """A worker of that server."""
    async with (
        server.canned,
        Worker(server.canned.address, task_queue="queue", **options) as worker,
    ):
        yield worker


def value_of(payloads: Payloads) -> Any:
    """The first value."""
    return DataConverter.default().from_payloads(payloads)[0]
