"""History as its peers see it: one method per call, each in its own module under `api`."""

from collections.abc import Sequence

from aetheris.api.v1 import worker_service_pb2, workflow_service_pb2
from aetheris.server.v1 import history_service_pb2
from aetheris_server.history.api import (
    cancel_workflow,
    describe_workflow,
    get_workflow_history,
    query_workflow,
    respond_activity_task,
    respond_workflow_task,
    signal_workflow,
    start_tasks,
    start_workflow,
    terminate_workflow,
)
from aetheris_server.history.engine import Engine
from aetheris_server.history.notices import CancellationNotices


class HistoryService:
    """Implements `HistoryPeer` for the shards that this host has."""

    def __init__(self, engine: Engine, notices: CancellationNotices) -> None:
        self._engine = engine
        self._notices = notices

    async def start_workflow(
        self, namespace_id: str, request: workflow_service_pb2.StartWorkflowRequest
    ) -> workflow_service_pb2.StartWorkflowResponse:
        """See `api.start_workflow`."""
        return await start_workflow.start_workflow(
            self._engine, self._notices, namespace_id, request
        )

    async def signal_workflow(
        self, namespace_id: str, request: workflow_service_pb2.SignalWorkflowRequest
    ) -> workflow_service_pb2.SignalWorkflowResponse:
        """See `api.signal_workflow`."""
        return await signal_workflow.signal_workflow(self._engine, namespace_id, request)

    async def query_workflow(
        self, namespace_id: str, request: workflow_service_pb2.QueryWorkflowRequest
    ) -> workflow_service_pb2.QueryWorkflowResponse:
        """See `api.query_workflow`."""
        return await query_workflow.query_workflow(self._engine, namespace_id, request)

    async def cancel_workflow(
        self, namespace_id: str, request: workflow_service_pb2.CancelWorkflowRequest
    ) -> workflow_service_pb2.CancelWorkflowResponse:
        """See `api.cancel_workflow`."""
        return await cancel_workflow.cancel_workflow(self._engine, namespace_id, request)

    async def terminate_workflow(
        self, namespace_id: str, request: workflow_service_pb2.TerminateWorkflowRequest
    ) -> workflow_service_pb2.TerminateWorkflowResponse:
        """See `api.terminate_workflow`."""
        return await terminate_workflow.terminate_workflow(
            self._engine, self._notices, namespace_id, request
        )

    async def describe_workflow(
        self, namespace_id: str, request: workflow_service_pb2.DescribeWorkflowRequest
    ) -> workflow_service_pb2.DescribeWorkflowResponse:
        """See `api.describe_workflow`."""
        return await describe_workflow.describe_workflow(self._engine, namespace_id, request)

    async def get_workflow_history(
        self, namespace_id: str, request: workflow_service_pb2.GetWorkflowHistoryRequest
    ) -> workflow_service_pb2.GetWorkflowHistoryResponse:
        """See `api.get_workflow_history`."""
        return await get_workflow_history.get_workflow_history(self._engine, namespace_id, request)

    async def poll_workflow_result(
        self, namespace_id: str, request: workflow_service_pb2.PollWorkflowResultRequest
    ) -> workflow_service_pb2.PollWorkflowResultResponse:
        """See `api.get_workflow_history`."""
        return await get_workflow_history.poll_workflow_result(self._engine, namespace_id, request)

    async def respond_workflow_task_completed(
        self, namespace_id: str, request: worker_service_pb2.RespondWorkflowTaskCompletedRequest
    ) -> worker_service_pb2.RespondWorkflowTaskCompletedResponse:
        """See `api.respond_workflow_task`."""
        return await respond_workflow_task.respond_workflow_task_completed(
            self._engine, self._notices, namespace_id, request
        )

    async def respond_workflow_task_failed(
        self, namespace_id: str, request: worker_service_pb2.RespondWorkflowTaskFailedRequest
    ) -> worker_service_pb2.RespondWorkflowTaskFailedResponse:
        """See `api.respond_workflow_task`."""
        return await respond_workflow_task.respond_workflow_task_failed(
            self._engine, namespace_id, request
        )

    async def respond_query_task_completed(
        self, namespace_id: str, request: worker_service_pb2.RespondQueryTaskCompletedRequest
    ) -> worker_service_pb2.RespondQueryTaskCompletedResponse:
        """See `api.query_workflow`."""
        return await query_workflow.respond_query_task_completed(
            self._engine, namespace_id, request
        )

    async def respond_activity_task_completed(
        self, namespace_id: str, request: worker_service_pb2.RespondActivityTaskCompletedRequest
    ) -> worker_service_pb2.RespondActivityTaskCompletedResponse:
        """See `api.respond_activity_task`."""
        return await respond_activity_task.respond_activity_task_completed(
            self._engine, namespace_id, request
        )

    async def respond_activity_task_failed(
        self, namespace_id: str, request: worker_service_pb2.RespondActivityTaskFailedRequest
    ) -> worker_service_pb2.RespondActivityTaskFailedResponse:
        """See `api.respond_activity_task`."""
        return await respond_activity_task.respond_activity_task_failed(
            self._engine, namespace_id, request
        )

    async def respond_activity_task_cancelled(
        self, namespace_id: str, request: worker_service_pb2.RespondActivityTaskCancelledRequest
    ) -> worker_service_pb2.RespondActivityTaskCancelledResponse:
        """See `api.respond_activity_task`."""
        return await respond_activity_task.respond_activity_task_cancelled(
            self._engine, namespace_id, request
        )

    async def record_activity_task_heartbeat(
        self, namespace_id: str, request: worker_service_pb2.RecordActivityTaskHeartbeatRequest
    ) -> worker_service_pb2.RecordActivityTaskHeartbeatResponse:
        """See `api.respond_activity_task`."""
        return await respond_activity_task.record_activity_task_heartbeat(
            self._engine, namespace_id, request
        )

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        """See `api.start_tasks`."""
        return await start_tasks.start_tasks(self._engine, request)

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        """See `api.start_tasks`."""
        await start_tasks.release_tasks(self._engine, task_tokens)
