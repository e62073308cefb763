"""Matching and catalog without anything behind them, and answers of a `FakeHistory`: what a test of
the border needs.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from aetheris.api.v1 import workflow_service_pb2
from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import NamespaceAlreadyExistsError
from aetheris_server.frontend.catalog import ClusterOverview
from aetheris_server.rpc import table
from aetheris_server.rpc.peers import LocalMatching
from aetheris_server.rpc.table import MatchingMethod
from aetheris_server.storage.execution_rows import ExecutionRow
from aetheris_server.storage.executions import ExecutionFilter
from aetheris_server.storage.namespaces import Namespace
from tests.support.fake_history import Answer

NAMESPACE = "default"
NAMESPACE_ID = "11111111-1111-4111-8111-111111111111"


class FakeMatching:
    """Polls wait until `tasks_ready` is set, unless `answers_at_once`; activities have `input`."""

    def __init__(self, *, answers_at_once: bool = False) -> None:
        self.tasks_ready = asyncio.Event()
        self.input = b""
        if answers_at_once:
            self.tasks_ready.set()
        self.polls: list[Any] = []
        self.waiting = 0
        self.cancelled = 0
        self.added: list[matching_service_pb2.TaskRef] = []
        self.notified: list[matching_service_pb2.NotifyCancellationRequest] = []
        self.shut_down: list[matching_service_pb2.ShutdownWorkerRequest] = []

    async def add_tasks(self, tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
        self.added += tasks

    def serve(self) -> LocalMatching:
        """As the matching of one host."""
        handlers = {method: answer.__get__(self) for method, answer in _MATCHING.items()}
        return LocalMatching(handlers, self.add_tasks)

    async def call(self, method: MatchingMethod[Any, Any], request: Any) -> Any:
        return await _MATCHING[method](self, request)

    async def _poll_workflow_tasks(self, request: matching_service_pb2.PollWorkflowTasksRequest):
        await self._wait(request.request)
        answer = matching_service_pb2.PollWorkflowTasksResponse()
        answer.response.tasks.add(task_token=request.namespace_id.encode())
        return answer

    async def _poll_activity_tasks(self, request: matching_service_pb2.PollActivityTasksRequest):
        await self._wait(request.request)
        answer = matching_service_pb2.PollActivityTasksResponse()
        task = answer.response.tasks.add(task_token=request.namespace_id.encode())
        if self.input:
            task.input.payloads.add(data=self.input)
        return answer

    async def _notify_cancellation(self, request: matching_service_pb2.NotifyCancellationRequest):
        self.notified.append(request)
        return matching_service_pb2.NotifyCancellationResponse()

    async def _shutdown_worker(self, request: matching_service_pb2.ShutdownWorkerRequest):
        self.shut_down.append(request)
        return matching_service_pb2.ShutdownWorkerResponse()

    async def _describe_task_queue(self, request: matching_service_pb2.DescribeTaskQueueRequest):
        del request
        return matching_service_pb2.DescribeTaskQueueResponse()

    async def _update_task_queue(self, request: matching_service_pb2.UpdateTaskQueueRequest):
        answer = matching_service_pb2.UpdateTaskQueueResponse()
        answer.response.default_build_id = request.request.default_build_id
        return answer

    async def _wait(self, request: Any) -> None:
        self.polls.append(request)
        self.waiting += 1
        try:
            await self.tasks_ready.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.waiting -= 1


_MATCHING: dict[MatchingMethod[Any, Any], Callable[..., Any]] = {
    table.POLL_WORKFLOW_TASKS: FakeMatching._poll_workflow_tasks,
    table.POLL_ACTIVITY_TASKS: FakeMatching._poll_activity_tasks,
    table.NOTIFY_CANCELLATION: FakeMatching._notify_cancellation,
    table.SHUTDOWN_WORKER: FakeMatching._shutdown_worker,
    table.DESCRIBE_TASK_QUEUE: FakeMatching._describe_task_queue,
    table.UPDATE_TASK_QUEUE: FakeMatching._update_task_queue,
}


class FakeCatalog:
    """Namespaces and runs in memory; `default` is there."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Namespace] = {}
        self.rows: list[ExecutionRow] = []
        self.filters: list[ExecutionFilter] = []
        self.loads = 0
        self._make(NAMESPACE_ID, NAMESPACE, "", 3600, "request")

    async def load_namespace(self, name: str) -> Namespace | None:
        self.loads += 1
        await asyncio.sleep(0)
        return self.namespaces.get(name)

    async def create_namespace(
        self,
        namespace_id: str,
        name: str,
        description: str,
        retention_seconds: int,
        request_id: str,
        limits: Mapping[str, int] = MappingProxyType({}),
    ) -> Namespace:
        found = self.namespaces.get(name)
        if found is None:
            made = self._make(namespace_id, name, description, retention_seconds, request_id)
            self.namespaces[name] = replace(made, limits=limits)
            return self.namespaces[name]
        if found.request_id != request_id:
            raise NamespaceAlreadyExistsError(name)
        return found

    async def update_namespace(
        self,
        name: str,
        description: str | None,
        retention_seconds: int | None,
        limits: Mapping[str, int],
        unset_limits: Collection[str],
    ) -> Namespace | None:
        found = self.namespaces.get(name)
        if found is None:
            return None
        kept = {key: value for key, value in found.limits.items() if key not in unset_limits}
        self.namespaces[name] = replace(
            found,
            description=found.description if description is None else description,
            retention_seconds=retention_seconds or found.retention_seconds,
            limits={**kept, **limits},
        )
        return self.namespaces[name]

    async def list_namespaces(self, page_size: int, after_name: str) -> list[Namespace]:
        names = sorted(name for name in self.namespaces if name > after_name)
        return [self.namespaces[name] for name in names[:page_size]]

    async def list_executions(
        self,
        namespace_id: str,
        wanted: ExecutionFilter,
        page_size: int,
        after: tuple[datetime, str] | None,
    ) -> list[ExecutionRow]:
        self.filters.append(wanted)
        rows = sorted(self.rows, key=lambda row: (row.start_time, row.run_id), reverse=True)
        return [
            row
            for row in rows
            if row.namespace_id == namespace_id
            and (after is None or (row.start_time, row.run_id) < after)
        ][:page_size]

    async def load_cluster(self) -> ClusterOverview:
        return ClusterOverview((), 4, {})

    def _make(
        self, namespace_id: str, name: str, description: str, retention: int, request_id: str
    ) -> Namespace:
        made = Namespace(
            namespace_id,
            name,
            description,
            retention,
            datetime(2026, 1, 1, tzinfo=UTC),
            request_id,
            {},
        )
        self.namespaces[name] = made
        return made


def answering(response: workflow_service_pb2.StartWorkflowResponse | Any) -> Answer:
    """An answer that is always the same."""

    async def answer(namespace_id: str, request: Any) -> Any:
        del namespace_id, request
        return response

    return answer


def refusing(error: Exception) -> Answer:
    """An answer that is always an error."""

    async def answer(namespace_id: str, request: Any) -> Any:
        del namespace_id, request
        raise error

    return answer
