"""History and matching of this host, for the other hosts of the cluster: what `remote` calls."""

from collections.abc import Awaitable
from typing import Any, TypeVar

from google.protobuf.message import Message

from aetheris.server.v1 import history_service_pb2 as history_pb
from aetheris.server.v1 import matching_service_pb2 as matching_pb
from aetheris_server.errors import DrainingError, InvalidArgumentError, NotReadyError
from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import CallContext, Handler, RpcService
from aetheris_server.rpc.peers import LocalHistory, LocalMatching
from aetheris_server.rpc.table import HISTORY_METHODS, MATCHING_METHODS, MatchingMethod
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.rpc.undelivered import TaskReleaser, release_undelivered, tokens_of

__all__ = ["internal_services"]

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

PollResponse = matching_pb.PollWorkflowTasksResponse | matching_pb.PollActivityTasksResponse


def internal_services(
    history: LocalHistory,
    matching: LocalMatching,
    gate: DrainGate,
    releaser: TaskReleaser,
    tokens: Tokens,
    credentials: PeerCredentials,
) -> list[RpcService]:
    """What this host offers to the others, for `serve_grpc`.

    Args:
        history: A call for a shard that this host has not fails, and is not passed on.
        matching: Of this host.
        gate: Of this host: polls are sent elsewhere when it begins to drain.
        releaser: History, wherever a run's shard is: takes back what no poll of another host got.
        tokens: Of the cluster.
        credentials: What callers must show.
    """

    async def release(response: PollResponse) -> None:
        await release_undelivered(releaser, tokens_of(response.response))

    return [
        RpcService(
            history_pb.DESCRIPTOR.services_by_name["HistoryService"],
            _history_handlers(history, tokens),
            credentials=credentials,
        ),
        RpcService(
            matching_pb.DESCRIPTOR.services_by_name["MatchingService"],
            _matching_handlers(matching, gate),
            {name: release for name, method in MATCHING_METHODS.items() if method.is_poll},
            credentials,
        ),
    ]


def _history_handlers(history: LocalHistory, tokens: Tokens) -> dict[str, Handler]:
    async def call(
        envelope: history_pb.CallRequest, context: CallContext
    ) -> history_pb.CallResponse:
        del context
        name = envelope.WhichOneof("request")
        if name is None:
            raise InvalidArgumentError("request", "expected a request, found none")
        method, request = HISTORY_METHODS[name], getattr(envelope, name)
        subject: Any = envelope.namespace_id
        if method.takes_token:
            subject = tokens.task_of(envelope.namespace_id, request)
        answer = await history.handler_of(method)(subject, request)
        response = history_pb.CallResponse()
        getattr(response, name).CopyFrom(answer)
        return response

    async def start_tasks(
        request: history_pb.StartTasksRequest, context: CallContext
    ) -> history_pb.StartTasksResponse:
        del context
        return await history.start_tasks(request)

    async def release_tasks(
        request: history_pb.ReleaseTasksRequest, context: CallContext
    ) -> history_pb.ReleaseTasksResponse:
        del context
        await history.release_tasks([tokens.open_task(token) for token in request.task_tokens])
        return history_pb.ReleaseTasksResponse()

    async def call_aggregates(
        request: history_pb.CallAggregatesRequest, context: CallContext
    ) -> history_pb.CallAggregatesResponse:
        del context
        outcomes = await history.call_aggregates(request.calls)
        return history_pb.CallAggregatesResponse(outcomes=outcomes)

    return {
        "Call": call,
        "StartTasks": start_tasks,
        "ReleaseTasks": release_tasks,
        "CallAggregates": call_aggregates,
    }


def _matching_handlers(matching: LocalMatching, gate: DrainGate) -> dict[str, Handler]:
    async def add_tasks(
        request: matching_pb.AddTasksRequest, context: CallContext
    ) -> matching_pb.AddTasksResponse:
        del context
        await matching.add_tasks(request.tasks)
        return matching_pb.AddTasksResponse()

    of_rows = {
        name: _polled(matching, gate, method) if method.is_poll else _called(matching, method)
        for name, method in MATCHING_METHODS.items()
    }
    return {"AddTasks": add_tasks, **of_rows}


def _called(matching: LocalMatching, method: MatchingMethod[Q, R]) -> Handler:
    handler = matching.handler_of(method)

    def call(request: Q, context: CallContext) -> Awaitable[R]:
        del context
        return handler(request)

    return call


def _polled(matching: LocalMatching, gate: DrainGate, method: MatchingMethod[Q, R]) -> Handler:
    handler = matching.handler_of(method)

    async def poll(request: Q, context: CallContext) -> R:
        del context
        # Matching answers empty before that by itself; the gate is for draining.
        tasks = await gate.run(handler(request), method.timeout_of(request))
        if tasks is not None:
            return tasks
        # Not an empty answer: its worker would come back here at once, again and again. The other
        # host looks up who has the queue next.
        if gate.is_draining:
            raise DrainingError
        raise NotReadyError("matching")

    return poll
