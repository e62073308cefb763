"""What history and matching offer to each other and to the frontend.

A part depends on these protocols only. In one process the object behind a protocol is the service
itself, so a call is a method call on the public messages; across processes it is a gRPC stub that
wraps the same messages. Errors are those of `aetheris_server.errors` either way.

Every method must be given up to cancellation by the caller: a deadline is the caller's affair.
"""

from collections.abc import Sequence
from typing import Protocol

from aetheris.api.v1 import operator_service_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2


class HistoryPeer(Protocol):
    """History, wherever the run's shard is. Requests have been checked by a frontend."""

    async def start_workflow(
        self, namespace_id: str, request: workflow_service_pb2.StartWorkflowRequest
    ) -> workflow_service_pb2.StartWorkflowResponse:
        """See `WorkflowService.StartWorkflow`."""
        ...

    async def signal_workflow(
        self, namespace_id: str, request: workflow_service_pb2.SignalWorkflowRequest
    ) -> workflow_service_pb2.SignalWorkflowResponse:
        """See `WorkflowService.SignalWorkflow`."""
        ...

    async def query_workflow(
        self, namespace_id: str, request: workflow_service_pb2.QueryWorkflowRequest
    ) -> workflow_service_pb2.QueryWorkflowResponse:
        """See `WorkflowService.QueryWorkflow`."""
        ...

    async def cancel_workflow(
        self, namespace_id: str, request: workflow_service_pb2.CancelWorkflowRequest
    ) -> workflow_service_pb2.CancelWorkflowResponse:
        """See `WorkflowService.CancelWorkflow`."""
        ...

    async def terminate_workflow(
        self, namespace_id: str, request: workflow_service_pb2.TerminateWorkflowRequest
    ) -> workflow_service_pb2.TerminateWorkflowResponse:
        """See `WorkflowService.TerminateWorkflow`."""
        ...

    async def describe_workflow(
        self, namespace_id: str, request: workflow_service_pb2.DescribeWorkflowRequest
    ) -> workflow_service_pb2.DescribeWorkflowResponse:
        """See `WorkflowService.DescribeWorkflow`."""
        ...

    async def get_workflow_history(
        self, namespace_id: str, request: workflow_service_pb2.GetWorkflowHistoryRequest
    ) -> workflow_service_pb2.GetWorkflowHistoryResponse:
        """See `WorkflowService.GetWorkflowHistory`."""
        ...

    async def poll_workflow_result(
        self, namespace_id: str, request: workflow_service_pb2.PollWorkflowResultRequest
    ) -> workflow_service_pb2.PollWorkflowResultResponse:
        """See `WorkflowService.PollWorkflowResult`."""
        ...

    async def respond_workflow_task_completed(
        self, namespace_id: str, request: worker_service_pb2.RespondWorkflowTaskCompletedRequest
    ) -> worker_service_pb2.RespondWorkflowTaskCompletedResponse:
        """See `WorkerService.RespondWorkflowTaskCompleted`."""
        ...

    async def respond_workflow_task_failed(
        self, namespace_id: str, request: worker_service_pb2.RespondWorkflowTaskFailedRequest
    ) -> worker_service_pb2.RespondWorkflowTaskFailedResponse:
        """See `WorkerService.RespondWorkflowTaskFailed`."""
        ...

    async def respond_query_task_completed(
        self, namespace_id: str, request: worker_service_pb2.RespondQueryTaskCompletedRequest
    ) -> worker_service_pb2.RespondQueryTaskCompletedResponse:
        """See `WorkerService.RespondQueryTaskCompleted`."""
        ...

    async def respond_activity_task_completed(
        self, namespace_id: str, request: worker_service_pb2.RespondActivityTaskCompletedRequest
    ) -> worker_service_pb2.RespondActivityTaskCompletedResponse:
        """See `WorkerService.RespondActivityTaskCompleted`."""
        ...

    async def respond_activity_task_failed(
        self, namespace_id: str, request: worker_service_pb2.RespondActivityTaskFailedRequest
    ) -> worker_service_pb2.RespondActivityTaskFailedResponse:
        """See `WorkerService.RespondActivityTaskFailed`."""
        ...

    async def respond_activity_task_cancelled(
        self, namespace_id: str, request: worker_service_pb2.RespondActivityTaskCancelledRequest
    ) -> worker_service_pb2.RespondActivityTaskCancelledResponse:
        """See `WorkerService.RespondActivityTaskCancelled`."""
        ...

    async def record_activity_task_heartbeat(
        self, namespace_id: str, request: worker_service_pb2.RecordActivityTaskHeartbeatRequest
    ) -> worker_service_pb2.RecordActivityTaskHeartbeatResponse:
        """See `WorkerService.RecordActivityTaskHeartbeat`."""
        ...

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        """A poller takes tasks, of any shards; one outcome per task, in order.

        Never raises for a single task: one whose shard cannot answer now comes back as `retry`.
        """
        ...

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        """The poller disappeared before it got these started tasks; they are offered again."""
        ...


class MatchingPeer(Protocol):
    """Matching, wherever the task queue is."""

    async def add_tasks(self, tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
        """Offer tasks; returns when each is with a poller or in the backlog. Offering twice does no
        harm.

        Raises:
            UnavailableError: Some may not be safe; offer all again.
        """
        ...

    async def poll_workflow_tasks(
        self, namespace_id: str, request: worker_service_pb2.PollWorkflowTasksRequest
    ) -> worker_service_pb2.PollWorkflowTasksResponse:
        """See `WorkerService.PollWorkflowTasks`."""
        ...

    async def poll_activity_tasks(
        self, namespace_id: str, request: worker_service_pb2.PollActivityTasksRequest
    ) -> worker_service_pb2.PollActivityTasksResponse:
        """See `WorkerService.PollActivityTasks`."""
        ...

    async def notify_cancellation(
        self, request: matching_service_pb2.NotifyCancellationRequest
    ) -> None:
        """Tell a worker, through its current or next poll, to cancel an activity. Best effort."""
        ...

    async def shutdown_worker(self, request: matching_service_pb2.ShutdownWorkerRequest) -> None:
        """See `WorkerService.ShutdownWorker`, for one side of a queue."""
        ...

    async def describe_task_queue(
        self, namespace_id: str, request: operator_service_pb2.DescribeTaskQueueRequest
    ) -> operator_service_pb2.DescribeTaskQueueResponse:
        """See `OperatorService.DescribeTaskQueue`."""
        ...
