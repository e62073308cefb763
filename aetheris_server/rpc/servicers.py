# ruff: noqa: N802 - gRPC names the methods
"""History and matching of this host, for the other hosts of the cluster: what `remote` calls."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from google.protobuf.message import Message

from aetheris.server.v1 import history_service_pb2 as history_pb
from aetheris.server.v1 import matching_service_pb2 as matching_pb
from aetheris.server.v1.history_service_pb2_grpc import HistoryServiceServicer
from aetheris.server.v1.matching_service_pb2_grpc import MatchingServiceServicer
from aetheris_server.errors import DrainingError, InvalidArgumentError, NotReadyError
from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import CallContext, RpcService
from aetheris_server.rpc.peers import HistoryPeer, MatchingPeer
from aetheris_server.rpc.undelivered import TaskReleaser, release_undelivered, tokens_of

__all__ = ["HistoryServicer", "MatchingServicer", "internal_services"]

T = TypeVar("T")

PollResponse = matching_pb.PollWorkflowTasksResponse | matching_pb.PollActivityTasksResponse

# Over the longest poll: matching answers empty by itself, the gate is for draining.
_POLL_TIMEOUT = 120.0


def internal_services(
    history: HistoryPeer,
    matching: MatchingPeer,
    gate: DrainGate,
    releaser: TaskReleaser,
    credentials: PeerCredentials,
) -> list[RpcService]:
    """What this host offers to the others, for `serve_grpc`.

    Args:
        history: Of this host alone: a call for a shard that it has not must fail, not be passed on.
        matching: Of this host alone.
        gate: Of this host.
        releaser: History, wherever a run's shard is: takes back what no poll of another host got.
        credentials: What callers must show.
    """

    async def release(response: PollResponse) -> None:
        await release_undelivered(releaser, tokens_of(response.response))

    return [
        RpcService(
            history_pb.DESCRIPTOR.services_by_name["HistoryService"],
            HistoryServicer(history),
            credentials=credentials,
        ),
        RpcService(
            matching_pb.DESCRIPTOR.services_by_name["MatchingService"],
            MatchingServicer(matching, gate),
            {"PollWorkflowTasks": release, "PollActivityTasks": release},
            credentials,
        ),
    ]


class HistoryServicer(HistoryServiceServicer):
    """The names of the fields of `CallRequest` are those of HistoryPeer's methods."""

    def __init__(self, history: HistoryPeer) -> None:
        self._history = history

    async def Call(
        self, request: history_pb.CallRequest, context: CallContext
    ) -> history_pb.CallResponse:
        method = request.WhichOneof("request")
        if method is None:
            raise InvalidArgumentError("request", "expected a request, found none")
        call = getattr(self._history, method)
        answer: Message = await call(request.namespace_id, getattr(request, method))
        response = history_pb.CallResponse()
        getattr(response, method).CopyFrom(answer)
        return response

    async def StartTasks(
        self, request: history_pb.StartTasksRequest, context: CallContext
    ) -> history_pb.StartTasksResponse:
        return await self._history.start_tasks(request)

    async def ReleaseTasks(
        self, request: history_pb.ReleaseTasksRequest, context: CallContext
    ) -> history_pb.ReleaseTasksResponse:
        await self._history.release_tasks(request.task_tokens)
        return history_pb.ReleaseTasksResponse()


class MatchingServicer(MatchingServiceServicer):
    """Polls are sent elsewhere when this host begins to drain."""

    def __init__(self, matching: MatchingPeer, gate: DrainGate) -> None:
        self._matching = matching
        self._gate = gate

    async def AddTasks(
        self, request: matching_pb.AddTasksRequest, context: CallContext
    ) -> matching_pb.AddTasksResponse:
        await self._matching.add_tasks(request.tasks)
        return matching_pb.AddTasksResponse()

    async def PollWorkflowTasks(
        self, request: matching_pb.PollWorkflowTasksRequest, context: CallContext
    ) -> matching_pb.PollWorkflowTasksResponse:
        poll = self._matching.poll_workflow_tasks(request.namespace_id, request.request)
        return matching_pb.PollWorkflowTasksResponse(response=await self._wait(poll))

    async def PollActivityTasks(
        self, request: matching_pb.PollActivityTasksRequest, context: CallContext
    ) -> matching_pb.PollActivityTasksResponse:
        poll = self._matching.poll_activity_tasks(request.namespace_id, request.request)
        return matching_pb.PollActivityTasksResponse(response=await self._wait(poll))

    async def NotifyCancellation(
        self, request: matching_pb.NotifyCancellationRequest, context: CallContext
    ) -> matching_pb.NotifyCancellationResponse:
        await self._matching.notify_cancellation(request)
        return matching_pb.NotifyCancellationResponse()

    async def ShutdownWorker(
        self, request: matching_pb.ShutdownWorkerRequest, context: CallContext
    ) -> matching_pb.ShutdownWorkerResponse:
        await self._matching.shutdown_worker(request)
        return matching_pb.ShutdownWorkerResponse()

    async def DescribeTaskQueue(
        self, request: matching_pb.DescribeTaskQueueRequest, context: CallContext
    ) -> matching_pb.DescribeTaskQueueResponse:
        answer = await self._matching.describe_task_queue(request.namespace_id, request.request)
        return matching_pb.DescribeTaskQueueResponse(response=answer)

    async def _wait(self, poll: Coroutine[Any, Any, T]) -> T:
        tasks = await self._gate.run(poll, _POLL_TIMEOUT)
        if tasks is not None:
            return tasks
        # Not an empty answer: its worker would come back here at once, again and again. The other
        # host looks up who has the queue next.
        if self._gate.is_draining:
            raise DrainingError
        raise NotReadyError("matching")
