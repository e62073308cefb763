"""A history without runs: what tests of the border and of matching put behind them.

What it says of starting and releasing tasks, the real one says too: see
tests/integration/history/test_starting_contract.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_WORKFLOW
from aetheris.api.v1.worker_service_pb2 import ActivityTask, WorkflowTask
from aetheris.server.v1.history_service_pb2 import (
    AggregateCall,
    CallOutcome,
    StartedTask,
    StartTasksRequest,
    StartTasksResponse,
    TaskGone,
    TaskRetry,
)
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.rpc.peers import LocalHistory
from aetheris_server.rpc.table import HISTORY_METHODS, HistoryMethod

Answer = Callable[[str, Any], Awaitable[Any]]


class FakeHistory:
    """Starts each reference once, unless it is released or the very call comes again; notes all
    other calls, and answers with what the test set, else with an empty response.

    A reference is known by its run id, or by its workflow id where it has none; that is also the
    token of its task.

    Attributes:
        calls: Names, namespace ids and requests of all calls but those that start and release.
        answers: By name.
        requests: All requests to start.
        started: What was started, in that order.
        released: Tokens of released tasks, sealed or opened, as they were given to it.
        retry_count: So many of the next outcomes are `retry`.
        called: All calls of aggregates; the answer to each is its payload.
        gate: If set, starts wait for it, after they have started their tasks.
        on_release: Called with each released token.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, str, Any]] = []
        self.answers: dict[str, Answer] = {}
        self.requests: list[StartTasksRequest] = []
        self.started: list[str] = []
        self.released: list[Any] = []
        self.retry_count = 0
        self.gate: asyncio.Event | None = None
        self.called: list[AggregateCall] = []
        self.on_release: Callable[[Any], object] = self.released.append
        # The request id of the call that has started each.
        self._starts: dict[str, str] = {}

    def serve(self) -> LocalHistory:
        """As the history of one host."""
        handlers = {method: partial(self.call, method) for method in HISTORY_METHODS.values()}
        return LocalHistory(handlers, self.start_tasks, self.release_tasks, self.call_aggregates)

    async def call(self, method: HistoryMethod[Any, Any, Any], subject: Any, request: Any) -> Any:
        namespace_id, _ = method.key_of(subject, request)
        self.calls.append((method.name, namespace_id, request))
        if method.name in self.answers:
            return await self.answers[method.name](namespace_id, request)
        return method.response()

    async def start_tasks(self, request: StartTasksRequest) -> StartTasksResponse:
        self.requests.append(request)
        response = StartTasksResponse(
            tasks=[self._start(ref, request.request_id) for ref in request.tasks]
        )
        if self.gate is not None:
            await self.gate.wait()
        return response

    async def release_tasks(self, task_tokens: Sequence[Any]) -> None:
        for token in task_tokens:
            self._starts.pop(_name_of(token), None)
            self.on_release(token)

    async def call_aggregates(self, calls: Sequence[AggregateCall]) -> Sequence[CallOutcome]:
        self.called += calls
        return [CallOutcome(answer=call.payload) for call in calls]

    def not_started(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if name not in self._starts]

    def _start(self, ref: TaskRef, request_id: str) -> StartedTask:
        if self.retry_count:
            self.retry_count -= 1
            return StartedTask(retry=TaskRetry())
        name = ref.run_id or ref.workflow_id
        if name in self._starts and not (request_id and self._starts[name] == request_id):
            return StartedTask(gone=TaskGone())
        self._starts[name] = request_id
        self.started.append(name)
        token = name.encode()
        if ref.task_queue_type == TASK_QUEUE_TYPE_WORKFLOW:
            return StartedTask(workflow_task=WorkflowTask(task_token=token))
        return StartedTask(
            activity_task=ActivityTask(task_token=token, activity_id=ref.workflow_id)
        )


def _name_of(token: bytes | TaskToken) -> str:
    if isinstance(token, TaskToken):
        return token.run_id or token.workflow_id
    return token.decode()
