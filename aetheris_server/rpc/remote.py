"""History and matching on another host: the same protocols, over gRPC.

Errors are those of the tree that the other host raised, or PeerUnavailableError.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from grpc.aio import AioRpcError

from aetheris.api.v1 import operator_service_pb2, worker_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris_server.rpc.channels import ChannelPool, HostStubs
from aetheris_server.rpc.errors import from_rpc_error
from aetheris_server.rpc.history_calls import HistoryCalls

__all__ = ["RemoteHistory", "RemoteMatching"]

R = TypeVar("R", bound=Message)

# A host that is silent is given up in time to ask the one that has the shard by then.
_CALL_TIMEOUT = 5.0
_LONGEST_WAIT = 60.0
# Over what the other host may wait: its empty answer is better than our deadline.
_WAIT_SLACK = 10.0
_WAITING = frozenset({"query_workflow", "get_workflow_history", "poll_workflow_result"})


class RemoteHistory(HistoryCalls):
    """The history of one other host."""

    def __init__(self, pool: ChannelPool, address: str) -> None:
        self._pool = pool
        self._address = address

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        stubs = await self._pool.stubs(self._address)
        return await _ask(stubs, stubs.history.StartTasks, request, _CALL_TIMEOUT)

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        stubs = await self._pool.stubs(self._address)
        request = history_service_pb2.ReleaseTasksRequest(task_tokens=task_tokens)
        await _ask(stubs, stubs.history.ReleaseTasks, request, _CALL_TIMEOUT)

    async def _call(self, method: str, namespace_id: str, request: Message, response: type[R]) -> R:
        stubs = await self._pool.stubs(self._address)
        call = history_service_pb2.CallRequest(namespace_id=namespace_id)
        getattr(call, method).CopyFrom(request)
        # Waits that are bounded by the frontend: its cancellation ends the call earlier.
        timeout = _LONGEST_WAIT + _WAIT_SLACK if method in _WAITING else _CALL_TIMEOUT
        answer = await _ask(stubs, stubs.history.Call, call, timeout)
        return cast(R, getattr(answer, method))


class RemoteMatching:
    """The matching of one other host."""

    def __init__(self, pool: ChannelPool, address: str) -> None:
        self._pool = pool
        self._address = address

    async def add_tasks(self, tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
        stubs = await self._pool.stubs(self._address)
        request = matching_service_pb2.AddTasksRequest(tasks=tasks)
        await _ask(stubs, stubs.matching.AddTasks, request, _CALL_TIMEOUT)

    async def poll_workflow_tasks(
        self, namespace_id: str, request: worker_service_pb2.PollWorkflowTasksRequest
    ) -> worker_service_pb2.PollWorkflowTasksResponse:
        stubs = await self._pool.stubs(self._address)
        poll = matching_service_pb2.PollWorkflowTasksRequest(
            namespace_id=namespace_id, request=request
        )
        timeout = _poll_timeout(request.poll_timeout)
        answer = await _ask(stubs, stubs.matching.PollWorkflowTasks, poll, timeout)
        return answer.response

    async def poll_activity_tasks(
        self, namespace_id: str, request: worker_service_pb2.PollActivityTasksRequest
    ) -> worker_service_pb2.PollActivityTasksResponse:
        stubs = await self._pool.stubs(self._address)
        poll = matching_service_pb2.PollActivityTasksRequest(
            namespace_id=namespace_id, request=request
        )
        timeout = _poll_timeout(request.poll_timeout)
        answer = await _ask(stubs, stubs.matching.PollActivityTasks, poll, timeout)
        return answer.response

    async def notify_cancellation(
        self, request: matching_service_pb2.NotifyCancellationRequest
    ) -> None:
        stubs = await self._pool.stubs(self._address)
        await _ask(stubs, stubs.matching.NotifyCancellation, request, _CALL_TIMEOUT)

    async def shutdown_worker(self, request: matching_service_pb2.ShutdownWorkerRequest) -> None:
        stubs = await self._pool.stubs(self._address)
        await _ask(stubs, stubs.matching.ShutdownWorker, request, _CALL_TIMEOUT)

    async def describe_task_queue(
        self, namespace_id: str, request: operator_service_pb2.DescribeTaskQueueRequest
    ) -> operator_service_pb2.DescribeTaskQueueResponse:
        stubs = await self._pool.stubs(self._address)
        describe = matching_service_pb2.DescribeTaskQueueRequest(
            namespace_id=namespace_id, request=request
        )
        answer = await _ask(stubs, stubs.matching.DescribeTaskQueue, describe, _CALL_TIMEOUT)
        return answer.response


async def _ask(
    stubs: HostStubs, ask: Callable[..., Awaitable[R]], request: Message, timeout: float
) -> R:
    """The other host's answer, or the error that it raised."""
    try:
        return await ask(request, timeout=timeout, metadata=stubs.metadata)
    except AioRpcError as error:
        raise from_rpc_error(error) from None


def _poll_timeout(asked: Duration) -> float:
    """A deadline behind the poll's own end. The frontend has filled that in."""
    return asked.seconds + asked.nanos / 1e9 + _WAIT_SLACK
