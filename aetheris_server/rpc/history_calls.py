"""The calls of HistoryPeer that take a namespace and a request, all by way of one method.

Whoever passes calls on (a stub, a router) treats them alike; here is the one place that spells them
out. Each method's name is that of its field in `CallRequest` and `CallResponse`.
"""

from abc import ABC, abstractmethod
from typing import TypeVar

from google.protobuf.message import Message

from aetheris.api.v1 import worker_service_pb2 as worker
from aetheris.api.v1 import workflow_service_pb2 as workflow

__all__ = ["HistoryCalls"]

R = TypeVar("R", bound=Message)


class HistoryCalls(ABC):
    """All of HistoryPeer but `start_tasks` and `release_tasks`."""

    @abstractmethod
    async def _call(self, method: str, namespace_id: str, request: Message, response: type[R]) -> R:
        """Pass a call on; `response` is the type of what it gives."""

    async def start_workflow(
        self, namespace_id: str, request: workflow.StartWorkflowRequest
    ) -> workflow.StartWorkflowResponse:
        return await self._call(
            "start_workflow", namespace_id, request, workflow.StartWorkflowResponse
        )

    async def signal_workflow(
        self, namespace_id: str, request: workflow.SignalWorkflowRequest
    ) -> workflow.SignalWorkflowResponse:
        return await self._call(
            "signal_workflow", namespace_id, request, workflow.SignalWorkflowResponse
        )

    async def query_workflow(
        self, namespace_id: str, request: workflow.QueryWorkflowRequest
    ) -> workflow.QueryWorkflowResponse:
        return await self._call(
            "query_workflow", namespace_id, request, workflow.QueryWorkflowResponse
        )

    async def cancel_workflow(
        self, namespace_id: str, request: workflow.CancelWorkflowRequest
    ) -> workflow.CancelWorkflowResponse:
        return await self._call(
            "cancel_workflow", namespace_id, request, workflow.CancelWorkflowResponse
        )

    async def terminate_workflow(
        self, namespace_id: str, request: workflow.TerminateWorkflowRequest
    ) -> workflow.TerminateWorkflowResponse:
        return await self._call(
            "terminate_workflow", namespace_id, request, workflow.TerminateWorkflowResponse
        )

    async def describe_workflow(
        self, namespace_id: str, request: workflow.DescribeWorkflowRequest
    ) -> workflow.DescribeWorkflowResponse:
        return await self._call(
            "describe_workflow", namespace_id, request, workflow.DescribeWorkflowResponse
        )

    async def get_workflow_history(
        self, namespace_id: str, request: workflow.GetWorkflowHistoryRequest
    ) -> workflow.GetWorkflowHistoryResponse:
        return await self._call(
            "get_workflow_history", namespace_id, request, workflow.GetWorkflowHistoryResponse
        )

    async def poll_workflow_result(
        self, namespace_id: str, request: workflow.PollWorkflowResultRequest
    ) -> workflow.PollWorkflowResultResponse:
        return await self._call(
            "poll_workflow_result", namespace_id, request, workflow.PollWorkflowResultResponse
        )

    async def respond_workflow_task_completed(
        self, namespace_id: str, request: worker.RespondWorkflowTaskCompletedRequest
    ) -> worker.RespondWorkflowTaskCompletedResponse:
        return await self._call(
            "respond_workflow_task_completed",
            namespace_id,
            request,
            worker.RespondWorkflowTaskCompletedResponse,
        )

    async def respond_workflow_task_failed(
        self, namespace_id: str, request: worker.RespondWorkflowTaskFailedRequest
    ) -> worker.RespondWorkflowTaskFailedResponse:
        return await self._call(
            "respond_workflow_task_failed",
            namespace_id,
            request,
            worker.RespondWorkflowTaskFailedResponse,
        )

    async def respond_query_task_completed(
        self, namespace_id: str, request: worker.RespondQueryTaskCompletedRequest
    ) -> worker.RespondQueryTaskCompletedResponse:
        return await self._call(
            "respond_query_task_completed",
            namespace_id,
            request,
            worker.RespondQueryTaskCompletedResponse,
        )

    async def respond_activity_task_completed(
        self, namespace_id: str, request: worker.RespondActivityTaskCompletedRequest
    ) -> worker.RespondActivityTaskCompletedResponse:
        return await self._call(
            "respond_activity_task_completed",
            namespace_id,
            request,
            worker.RespondActivityTaskCompletedResponse,
        )

    async def respond_activity_task_failed(
        self, namespace_id: str, request: worker.RespondActivityTaskFailedRequest
    ) -> worker.RespondActivityTaskFailedResponse:
        return await self._call(
            "respond_activity_task_failed",
            namespace_id,
            request,
            worker.RespondActivityTaskFailedResponse,
        )

    async def respond_activity_task_cancelled(
        self, namespace_id: str, request: worker.RespondActivityTaskCancelledRequest
    ) -> worker.RespondActivityTaskCancelledResponse:
        return await self._call(
            "respond_activity_task_cancelled",
            namespace_id,
            request,
            worker.RespondActivityTaskCancelledResponse,
        )

    async def record_activity_task_heartbeat(
        self, namespace_id: str, request: worker.RecordActivityTaskHeartbeatRequest
    ) -> worker.RecordActivityTaskHeartbeatResponse:
        return await self._call(
            "record_activity_task_heartbeat",
            namespace_id,
            request,
            worker.RecordActivityTaskHeartbeatResponse,
        )
