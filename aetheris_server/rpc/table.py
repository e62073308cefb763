"""The RPC table: one row for each method of the public API, by who answers it, and for what else
the owner of a task queue is asked.

From a row follow the local call (`peers`), the call to another host (`remote`), what finds the host
(`routing`), and the internal servicer that takes it there (`servicers`). No other module lists the
methods; what serves one is registered under its row. What the frontend answers by itself, or takes
apart into calls of others, is called by nobody else: its rows say only that there is no owner.

Four calls are of many runs, queues or aggregates at once and come apart by host, so they are
methods of the peers and have no row: StartTasks, ReleaseTasks, CallAggregates and AddTasks.

A method of history is repeated at another host where the first turns out not to be the owner, or
does not answer: a write is idempotent under its request id or its task token. So is one of
matching, whose requests do no harm twice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from aetheris.api.v1 import operator_service_pb2 as operator
from aetheris.api.v1 import worker_service_pb2 as worker
from aetheris.api.v1 import workflow_service_pb2 as workflow
from aetheris.api.v1.task_queue_pb2 import (
    TASK_QUEUE_TYPE_ACTIVITY,
    TASK_QUEUE_TYPE_WORKFLOW,
    TaskQueueType,
)
from aetheris.server.v1 import matching_service_pb2 as matching
from aetheris.server.v1.history_service_pb2 import CallRequest
from aetheris.server.v1.token_pb2 import TaskToken

__all__ = [
    "CALL_TIMEOUT",
    "CANCEL_WORKFLOW",
    "DESCRIBE_TASK_QUEUE",
    "DESCRIBE_WORKFLOW",
    "FORK_WORKFLOW",
    "FRONTEND_METHODS",
    "GET_WORKFLOW_HISTORY",
    "HISTORY_METHODS",
    "LONGEST_WAIT",
    "MATCHING_METHODS",
    "NOTIFY_CANCELLATION",
    "PAUSE_ACTIVITY",
    "PAUSE_WORKFLOW",
    "POLL_ACTIVITY_TASKS",
    "POLL_WORKFLOW_RESULT",
    "POLL_WORKFLOW_TASKS",
    "POLL_WORKFLOW_UPDATE",
    "QUERY_WORKFLOW",
    "RECORD_ACTIVITY_TASK_HEARTBEAT",
    "RESET_ACTIVITY",
    "RESET_WORKFLOW",
    "RESPOND_ACTIVITY_TASK_CANCELLED",
    "RESPOND_ACTIVITY_TASK_COMPLETED",
    "RESPOND_ACTIVITY_TASK_FAILED",
    "RESPOND_QUERY_TASK_COMPLETED",
    "RESPOND_WORKFLOW_TASK_COMPLETED",
    "RESPOND_WORKFLOW_TASK_FAILED",
    "SHUTDOWN_WORKER",
    "SIGNAL_WITH_START_WORKFLOW",
    "SIGNAL_WORKFLOW",
    "START_WORKFLOW",
    "TERMINATE_WORKFLOW",
    "UNPAUSE_ACTIVITY",
    "UNPAUSE_WORKFLOW",
    "UPDATE_ACTIVITY_OPTIONS",
    "UPDATE_TASK_QUEUE",
    "UPDATE_WITH_START_WORKFLOW",
    "UPDATE_WORKFLOW",
    "UPDATE_WORKFLOW_OPTIONS",
    "FrontendMethod",
    "HistoryMethod",
    "MatchingMethod",
    "RunMethod",
    "TaskMethod",
]

S = TypeVar("S")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

CALL_TIMEOUT = 5.0
"""Seconds after which a host that is silent is given up, in time to ask the one that owns the thing
by then.
"""

# Over what the other host may wait: its empty answer is better than our deadline.
_WAIT_SLACK = 10.0
LONGEST_WAIT = 60
"""Seconds that a call of a row that waits may wait; nobody can ask for more."""


@dataclass(frozen=True, slots=True, eq=False)
class HistoryMethod(Generic[S, Q, R]):
    """A method of the public API that the owner of a run's shard answers.

    A call has a subject beside its request: the id of the namespace, which the frontend has looked
    up, or what the request's task token says, which the frontend has opened.

    Attributes:
        name: Of its field in `CallRequest` and `CallResponse`.
        request: Of the public API.
        response: Of the public API.
        takes_token: The subject is a TaskToken, else a namespace id.
        key_of: The namespace id and the workflow id of the run, which name its shard.
        timeout: Seconds after which another host that does not answer is given up.
    """

    name: str
    request: type[Q]
    response: type[R]
    takes_token: bool
    key_of: Callable[[S, Q], tuple[str, str]]
    timeout: float


RunMethod = HistoryMethod[str, Q, R]
"""Its subject is the id of a namespace, its run is named by the request."""

TaskMethod = HistoryMethod[TaskToken, Q, R]
"""Its subject is an opened task token, which names the run."""

_Queue = tuple[str, str, TaskQueueType.ValueType]


@dataclass(frozen=True, slots=True, eq=False)
class MatchingMethod(Generic[Q, R]):
    """A method of the internal MatchingService that the owner of one task queue answers.

    Attributes:
        name: Of the RPC.
        request: Of MatchingService.
        response: Of MatchingService.
        queue_of: The namespace id, the name and the type of the queue.
        timeout_of: Seconds after which another host that does not answer is given up.
        is_poll: It waits until there is something to answer, and is sent elsewhere when the host
            drains.
    """

    name: str
    request: type[Q]
    response: type[R]
    queue_of: Callable[[Q], _Queue]
    timeout_of: Callable[[Q], float]
    is_poll: bool


@dataclass(frozen=True, slots=True, eq=False)
class FrontendMethod(Generic[Q, R]):
    """A method of the public API that the frontend of any host answers.

    Attributes:
        request: Of the public API.
        response: Of the public API.
    """

    request: type[Q]
    response: type[R]


_history: dict[str, HistoryMethod[Any, Any, Any]] = {}
_matching: dict[str, MatchingMethod[Any, Any]] = {}

HISTORY_METHODS: Mapping[str, HistoryMethod[Any, Any, Any]] = _history
"""Every row of history, by name."""

MATCHING_METHODS: Mapping[str, MatchingMethod[Any, Any]] = _matching
"""Every row of matching, by name."""

_FIELDS = {
    field.message_type.full_name: field.name
    for field in CallRequest.DESCRIPTOR.oneofs_by_name["request"].fields
}


def _of_workflow(
    request: type[Q],
    response: type[R],
    *,
    key_of: Callable[[str, Q], tuple[str, str]],
    waits: bool = False,
) -> RunMethod[Q, R]:
    return _add_history(request, response, False, key_of, _timeout_of(waits=waits))


def _timeout_of(*, waits: bool) -> float:
    return LONGEST_WAIT + _WAIT_SLACK if waits else CALL_TIMEOUT


def _of_execution(request: type[Q], response: type[R], *, waits: bool = False) -> RunMethod[Q, R]:
    def key_of(namespace_id: str, request: Any) -> tuple[str, str]:
        return namespace_id, request.workflow_execution.workflow_id

    return _add_history(request, response, False, key_of, _timeout_of(waits=waits))


def _of_task(request: type[Q], response: type[R]) -> TaskMethod[Q, R]:
    def key_of(token: TaskToken, request: Q) -> tuple[str, str]:
        del request
        return token.namespace_id, token.workflow_id

    return _add_history(request, response, True, key_of, CALL_TIMEOUT)


def _add_history(
    request: type[Q],
    response: type[R],
    takes_token: bool,
    key_of: Callable[[S, Q], tuple[str, str]],
    timeout: float,
) -> HistoryMethod[S, Q, R]:
    name = _FIELDS[request.DESCRIPTOR.full_name]
    method = HistoryMethod(name, request, response, takes_token, key_of, timeout)
    _history[name] = method
    return method


def _of_queue(
    request: type[Q], response: type[R], queue_of: Callable[[Q], _Queue]
) -> MatchingMethod[Q, R]:
    return _add_matching(request, response, queue_of, lambda _: CALL_TIMEOUT, is_poll=False)


def _poll(
    request: type[Q], response: type[R], task_queue_type: TaskQueueType.ValueType
) -> MatchingMethod[Q, R]:
    def queue_of(request: Any) -> _Queue:
        return request.namespace_id, request.request.task_queue, task_queue_type

    def timeout_of(request: Any) -> float:
        # A deadline behind the poll's own end, which the frontend has filled in.
        wait = request.request.poll_timeout
        return wait.seconds + wait.nanos / 1e9 + _WAIT_SLACK

    return _add_matching(request, response, queue_of, timeout_of, is_poll=True)


def _add_matching(
    request: type[Q],
    response: type[R],
    queue_of: Callable[[Q], _Queue],
    timeout_of: Callable[[Q], float],
    *,
    is_poll: bool,
) -> MatchingMethod[Q, R]:
    name = request.DESCRIPTOR.name.removesuffix("Request")
    method = MatchingMethod(name, request, response, queue_of, timeout_of, is_poll)
    _matching[name] = method
    return method


# Of history, by the workflow id.

START_WORKFLOW = _of_workflow(
    workflow.StartWorkflowRequest,
    workflow.StartWorkflowResponse,
    key_of=lambda namespace_id, request: (namespace_id, request.workflow_id),
)
SIGNAL_WITH_START_WORKFLOW = _of_workflow(
    workflow.SignalWithStartWorkflowRequest,
    workflow.SignalWithStartWorkflowResponse,
    key_of=lambda namespace_id, request: (namespace_id, request.start.workflow_id),
)
SIGNAL_WORKFLOW = _of_execution(workflow.SignalWorkflowRequest, workflow.SignalWorkflowResponse)
QUERY_WORKFLOW = _of_execution(
    workflow.QueryWorkflowRequest, workflow.QueryWorkflowResponse, waits=True
)
CANCEL_WORKFLOW = _of_execution(workflow.CancelWorkflowRequest, workflow.CancelWorkflowResponse)
TERMINATE_WORKFLOW = _of_execution(
    workflow.TerminateWorkflowRequest, workflow.TerminateWorkflowResponse
)
PAUSE_WORKFLOW = _of_execution(workflow.PauseWorkflowRequest, workflow.PauseWorkflowResponse)
UNPAUSE_WORKFLOW = _of_execution(workflow.UnpauseWorkflowRequest, workflow.UnpauseWorkflowResponse)
PAUSE_ACTIVITY = _of_execution(workflow.PauseActivityRequest, workflow.PauseActivityResponse)
UNPAUSE_ACTIVITY = _of_execution(workflow.UnpauseActivityRequest, workflow.UnpauseActivityResponse)
RESET_ACTIVITY = _of_execution(workflow.ResetActivityRequest, workflow.ResetActivityResponse)
UPDATE_ACTIVITY_OPTIONS = _of_execution(
    workflow.UpdateActivityOptionsRequest, workflow.UpdateActivityOptionsResponse
)
UPDATE_WORKFLOW_OPTIONS = _of_execution(
    workflow.UpdateWorkflowOptionsRequest, workflow.UpdateWorkflowOptionsResponse
)
# A long history takes its time to be read and written.
RESET_WORKFLOW = _of_execution(
    workflow.ResetWorkflowRequest, workflow.ResetWorkflowResponse, waits=True
)
FORK_WORKFLOW = _of_workflow(
    workflow.ForkWorkflowRequest,
    workflow.ForkWorkflowResponse,
    key_of=lambda namespace_id, request: (namespace_id, request.workflow_id),
    waits=True,
)
DESCRIBE_WORKFLOW = _of_execution(
    workflow.DescribeWorkflowRequest, workflow.DescribeWorkflowResponse
)
GET_WORKFLOW_HISTORY = _of_execution(
    workflow.GetWorkflowHistoryRequest, workflow.GetWorkflowHistoryResponse, waits=True
)
POLL_WORKFLOW_RESULT = _of_execution(
    workflow.PollWorkflowResultRequest, workflow.PollWorkflowResultResponse, waits=True
)

UPDATE_WORKFLOW = _of_execution(
    workflow.UpdateWorkflowRequest, workflow.UpdateWorkflowResponse, waits=True
)
POLL_WORKFLOW_UPDATE = _of_execution(
    workflow.PollWorkflowUpdateRequest, workflow.PollWorkflowUpdateResponse, waits=True
)
UPDATE_WITH_START_WORKFLOW = _of_workflow(
    workflow.UpdateWithStartWorkflowRequest,
    workflow.UpdateWithStartWorkflowResponse,
    key_of=lambda namespace_id, request: (namespace_id, request.start.workflow_id),
    waits=True,
)

# Of history, by the task token.

RESPOND_WORKFLOW_TASK_COMPLETED = _of_task(
    worker.RespondWorkflowTaskCompletedRequest, worker.RespondWorkflowTaskCompletedResponse
)
RESPOND_WORKFLOW_TASK_FAILED = _of_task(
    worker.RespondWorkflowTaskFailedRequest, worker.RespondWorkflowTaskFailedResponse
)
RESPOND_QUERY_TASK_COMPLETED = _of_task(
    worker.RespondQueryTaskCompletedRequest, worker.RespondQueryTaskCompletedResponse
)
RESPOND_ACTIVITY_TASK_COMPLETED = _of_task(
    worker.RespondActivityTaskCompletedRequest, worker.RespondActivityTaskCompletedResponse
)
RESPOND_ACTIVITY_TASK_FAILED = _of_task(
    worker.RespondActivityTaskFailedRequest, worker.RespondActivityTaskFailedResponse
)
RESPOND_ACTIVITY_TASK_CANCELLED = _of_task(
    worker.RespondActivityTaskCancelledRequest, worker.RespondActivityTaskCancelledResponse
)
RECORD_ACTIVITY_TASK_HEARTBEAT = _of_task(
    worker.RecordActivityTaskHeartbeatRequest, worker.RecordActivityTaskHeartbeatResponse
)

# Of matching, by the task queue.

POLL_WORKFLOW_TASKS = _poll(
    matching.PollWorkflowTasksRequest,
    matching.PollWorkflowTasksResponse,
    TASK_QUEUE_TYPE_WORKFLOW,
)
POLL_ACTIVITY_TASKS = _poll(
    matching.PollActivityTasksRequest,
    matching.PollActivityTasksResponse,
    TASK_QUEUE_TYPE_ACTIVITY,
)
NOTIFY_CANCELLATION = _of_queue(
    matching.NotifyCancellationRequest,
    matching.NotifyCancellationResponse,
    lambda request: (request.namespace_id, request.task_queue, TASK_QUEUE_TYPE_ACTIVITY),
)
SHUTDOWN_WORKER = _of_queue(
    matching.ShutdownWorkerRequest,
    matching.ShutdownWorkerResponse,
    lambda request: (request.namespace_id, request.request.task_queue, request.task_queue_type),
)
DESCRIBE_TASK_QUEUE = _of_queue(
    matching.DescribeTaskQueueRequest,
    matching.DescribeTaskQueueResponse,
    lambda request: (
        request.namespace_id,
        request.request.task_queue,
        request.request.task_queue_type,
    ),
)

UPDATE_TASK_QUEUE = _of_queue(
    matching.UpdateTaskQueueRequest,
    matching.UpdateTaskQueueResponse,
    lambda request: (request.namespace_id, request.request.task_queue, TASK_QUEUE_TYPE_WORKFLOW),
)

# Of the frontend: the catalog, the parts of the cluster, and a batch of answers about tasks.

FRONTEND_METHODS: Sequence[FrontendMethod[Any, Any]] = (
    FrontendMethod(workflow.ListWorkflowsRequest, workflow.ListWorkflowsResponse),
    FrontendMethod(worker.RespondTasksRequest, worker.RespondTasksResponse),
    FrontendMethod(operator.CreateNamespaceRequest, operator.CreateNamespaceResponse),
    FrontendMethod(operator.UpdateNamespaceRequest, operator.UpdateNamespaceResponse),
    FrontendMethod(operator.DescribeNamespaceRequest, operator.DescribeNamespaceResponse),
    FrontendMethod(operator.ListNamespacesRequest, operator.ListNamespacesResponse),
    FrontendMethod(operator.DescribeClusterRequest, operator.DescribeClusterResponse),
)
"""Every row of the frontend."""
