"""What history and matching offer to each other and to the frontend.

The frontend, history and matching depend on the protocols only, and on rows of the RPC table: a
call of a row goes to the owner, wherever that is (`routing`). `LocalHistory` and `LocalMatching`
are what a host offers itself; there a call is a plain call of what is registered under the row,
with the same messages. Errors are those of `aetheris_server.errors` wherever the owner is.

Every call must be given up to cancellation by the caller: a deadline is the caller's affair.
"""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from google.protobuf.message import Message

from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.rpc.table import HistoryMethod, MatchingMethod

__all__ = [
    "START_TIMEOUT",
    "CallPeer",
    "HistoryPeer",
    "LocalHistory",
    "LocalMatching",
    "MatchingPeer",
]

S = TypeVar("S")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

START_TIMEOUT = 8.0
"""Seconds that each of several hosts has to start its part of a poll's tasks. Who asks must wait
longer: what the others have started would be lost with the one that is silent.
"""


class HistoryPeer(Protocol):
    """History, wherever the run's shard is. Requests have been checked by a frontend."""

    async def call(self, method: HistoryMethod[S, Q, R], subject: S, request: Q) -> R:
        """Have the owner of the run answer; see the method of the public API."""
        ...

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        """A poller takes tasks, of any shards; one outcome per task, in order.

        Never raises for a single task: one whose shard cannot answer now, or not within
        START_TIMEOUT, comes back as `retry`.
        """
        ...

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        """The poller disappeared before it got these started tasks; they are offered again."""
        ...


class CallPeer(Protocol):
    """History, as aggregates call each other there."""

    async def call_aggregates(
        self, calls: Sequence[history_service_pb2.AggregateCall]
    ) -> Sequence[history_service_pb2.CallOutcome]:
        """Call aggregates of any shards; one outcome per call, in order. Calling twice does no
        harm.

        Never raises for a single call: one that cannot be answered now comes back as `retry`.
        """
        ...


class MatchingPeer(Protocol):
    """Matching, wherever the task queue is."""

    async def call(self, method: MatchingMethod[Q, R], request: Q) -> R:
        """Have the owner of the task queue answer; see the method of MatchingService."""
        ...

    async def add_tasks(self, tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
        """Offer tasks; returns when each is with a poller or in the backlog. Offering twice does no
        harm.

        Raises:
            UnavailableError: Some may not be safe; offer all again.
        """
        ...


@dataclass(frozen=True, slots=True)
class LocalHistory:
    """History for the shards that this host has; a call for another's fails.

    Attributes:
        handlers: What answers each row, called with the subject and the request.
        start_tasks: See `HistoryPeer.start_tasks`.
        release_tasks: As `HistoryPeer.release_tasks`, of opened tokens.
        call_aggregates: See `CallPeer.call_aggregates`.
    """

    handlers: Mapping[HistoryMethod[Any, Any, Any], Callable[[Any, Any], Awaitable[Any]]]
    start_tasks: Callable[
        [history_service_pb2.StartTasksRequest],
        Awaitable[history_service_pb2.StartTasksResponse],
    ]
    release_tasks: Callable[[Sequence[TaskToken]], Awaitable[None]]
    call_aggregates: Callable[
        [Sequence[history_service_pb2.AggregateCall]],
        Awaitable[Sequence[history_service_pb2.CallOutcome]],
    ]

    def handler_of(self, method: HistoryMethod[S, Q, R]) -> Callable[[S, Q], Awaitable[R]]:
        """What answers a row."""
        return self.handlers[method]


@dataclass(frozen=True, slots=True)
class LocalMatching:
    """Matching for the queues that this host has.

    Attributes:
        handlers: What answers each row, called with the request.
        add_tasks: See `MatchingPeer.add_tasks`.
    """

    handlers: Mapping[MatchingMethod[Any, Any], Callable[[Any], Coroutine[Any, Any, Any]]]
    add_tasks: Callable[[Sequence[matching_service_pb2.TaskRef]], Awaitable[None]]

    def handler_of(self, method: MatchingMethod[Q, R]) -> Callable[[Q], Coroutine[Any, Any, R]]:
        """What answers a row."""
        return cast("Callable[[Q], Coroutine[Any, Any, R]]", self.handlers[method])
