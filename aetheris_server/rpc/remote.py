"""History and matching on another host, over gRPC.

Errors are those of the tree that the other host raised, or PeerUnavailableError.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast

from google.protobuf.message import Message
from grpc import StatusCode
from grpc.aio import AioRpcError

from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris_server.rpc.channels import ChannelPool, HostStubs
from aetheris_server.rpc.errors import STRANGERS, PeerUnavailableError, from_rpc_error
from aetheris_server.rpc.table import CALL_TIMEOUT, HistoryMethod, MatchingMethod

__all__ = ["RemoteHistory", "RemoteMatching"]

S = TypeVar("S")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)


class RemoteHistory:
    """The history of one other host."""

    def __init__(self, pool: ChannelPool, address: str) -> None:
        self._pool = pool
        self._address = address

    async def call(self, method: HistoryMethod[S, Q, R], subject: S, request: Q) -> R:
        """The answer of that host; it opens the token of a task anew."""
        stubs = await self._pool.stubs(self._address)
        namespace_id, _ = method.key_of(subject, request)
        envelope = history_service_pb2.CallRequest(namespace_id=namespace_id)
        getattr(envelope, method.name).CopyFrom(request)
        # A wait is bounded by the frontend: its cancellation ends the call earlier.
        answer = await _ask(stubs, stubs.history.Call, envelope, method.timeout)
        return cast(R, getattr(answer, method.name))

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        """Start tasks whose runs that host has."""
        stubs = await self._pool.stubs(self._address)
        return await _ask(stubs, stubs.history.StartTasks, request, CALL_TIMEOUT)

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        """Give back tasks whose runs that host has."""
        stubs = await self._pool.stubs(self._address)
        request = history_service_pb2.ReleaseTasksRequest(task_tokens=task_tokens)
        await _ask(stubs, stubs.history.ReleaseTasks, request, CALL_TIMEOUT)

    async def call_aggregates(
        self, calls: Sequence[history_service_pb2.AggregateCall]
    ) -> Sequence[history_service_pb2.CallOutcome]:
        """Call aggregates that that host has."""
        stubs = await self._pool.stubs(self._address)
        request = history_service_pb2.CallAggregatesRequest(calls=calls)
        return (await _ask(stubs, stubs.history.CallAggregates, request, CALL_TIMEOUT)).outcomes


class RemoteMatching:
    """The matching of one other host."""

    def __init__(self, pool: ChannelPool, address: str) -> None:
        self._pool = pool
        self._address = address

    async def call(self, method: MatchingMethod[Q, R], request: Q) -> R:
        """The answer of that host."""
        stubs = await self._pool.stubs(self._address)
        ask: Callable[..., Awaitable[R]] = getattr(stubs.matching, method.name)
        return await _ask(stubs, ask, request, method.timeout_of(request))

    async def add_tasks(self, tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
        """Offer tasks of queues that that host has."""
        stubs = await self._pool.stubs(self._address)
        request = matching_service_pb2.AddTasksRequest(tasks=tasks)
        await _ask(stubs, stubs.matching.AddTasks, request, CALL_TIMEOUT)


async def _ask(
    stubs: HostStubs, ask: Callable[..., Awaitable[R]], request: Any, timeout: float
) -> R:
    """The other host's answer, or the error that it raised."""
    try:
        answer = await ask(request, timeout=timeout, metadata=stubs.metadata)
    except AioRpcError as error:
        raise _note_failure(stubs, error) from None
    stubs.note_answer()
    return answer


def _note_failure(stubs: HostStubs, error: AioRpcError) -> Exception:
    """What the failure is to the caller; the operator is told where it is about the address."""
    failure = from_rpc_error(error)
    if not isinstance(failure, PeerUnavailableError):
        stubs.note_answer()
    elif error.code() in STRANGERS:
        stubs.note_stranger()
    elif error.code() is StatusCode.UNAVAILABLE:
        stubs.note_silence(str(failure))
    return failure
