"""Peers that find the host: by the run's shard for history, by the task queue for matching.

Where a host turns out not to be the owner, or does not answer, its address is looked up again and
the request repeated for a few seconds. That is safe: a write is idempotent under its request id or
its task token. Who owns what is the `locate` function's affair; it may change from call to call.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.message import Message

from aetheris.api.v1 import operator_service_pb2, task_queue_pb2, worker_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris_server.errors import (
    DrainingError,
    ShardLostError,
    ShardNotOwnedError,
    UnavailableError,
)
from aetheris_server.ids import new_run_id, shard_of
from aetheris_server.loops import pause
from aetheris_server.rpc.channels import ChannelPool
from aetheris_server.rpc.errors import PeerFaultError, PeerUnavailableError
from aetheris_server.rpc.history_calls import HistoryCalls
from aetheris_server.rpc.peers import HistoryPeer, MatchingPeer
from aetheris_server.rpc.remote import RemoteHistory, RemoteMatching
from aetheris_server.rpc.tokens import peek_task
from aetheris_server.telemetry import counter, get_logger

__all__ = ["LocateQueue", "LocateShard", "RoutedHistory", "RoutedMatching"]

T = TypeVar("T")
R = TypeVar("R", bound=Message)

LocateShard = Callable[[int], str | None]
"""The address of a shard's host, None for this one; raises ShardNotOwnedError where none has it."""

LocateQueue = Callable[[str, str, task_queue_pb2.TaskQueueType.ValueType], str | None]
"""The address of the host of (namespace_id, task queue, type), None for this one."""

# More than a takeover takes, and one call to a host that has fallen silent.
_RETRY_SECONDS = 10.0
_FIRST_DELAY = 0.02
_MAX_DELAY = 0.5
_START_DELAYS = (0.02, 0.1, 0.3)
# The request was not acted upon, or repeating it does no harm.
_ELSEWHERE = (ShardNotOwnedError, ShardLostError, DrainingError, PeerUnavailableError)

_RETRIES = counter("routing_retries", "Requests repeated because their host had moved.", ["reason"])

_log = get_logger(__name__)


class RoutedHistory(HistoryCalls):
    """History, wherever the run's shard is."""

    def __init__(
        self, locate: LocateShard, local: HistoryPeer, pool: ChannelPool, shard_count: int
    ) -> None:
        self._locate = locate
        self._local = local
        self._pool = pool
        self._shard_count = shard_count

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        shards = [self._shard(task.namespace_id, task.workflow_id) for task in request.tasks]
        hosts = _group(shards, self._try_locate)
        if all(address is None for address in hosts):
            return await self._local.start_tasks(request)
        tasks: dict[int, history_service_pb2.StartedTask] = {}
        async with asyncio.TaskGroup() as starts:
            for address, positions in hosts.items():
                starts.create_task(self._start_at(address, request, positions, tasks))
        return history_service_pb2.StartTasksResponse(
            tasks=[tasks[position] for position in range(len(request.tasks))]
        )

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        tokens = [peek_task(token) for token in task_tokens]
        shards = [self._shard(token.namespace_id, token.workflow_id) for token in tokens]
        by_shard = _group(shards, lambda shard_id: shard_id)
        results = await asyncio.gather(
            *(
                self._release_at(shard_id, [task_tokens[position] for position in positions])
                for shard_id, positions in by_shard.items()
            ),
            return_exceptions=True,
        )
        _raise_first(results)

    async def _call(self, method: str, namespace_id: str, request: Message, response: type[R]) -> R:
        del response
        shard_id = self._shard(namespace_id, _workflow_id_of(type(request))(request))

        async def call() -> R:
            return await getattr(self._at(self._locate(shard_id)), method)(namespace_id, request)

        return await _retry(call)

    async def _start_at(
        self,
        address: str | None,
        request: history_service_pb2.StartTasksRequest,
        positions: Sequence[int],
        tasks: dict[int, history_service_pb2.StartedTask],
    ) -> None:
        """Start what is at one host; what could not be started is to be offered again."""
        part = history_service_pb2.StartTasksRequest()
        part.CopyFrom(request)
        del part.tasks[:]
        part.tasks.extend(request.tasks[position] for position in positions)
        try:
            if address is None:
                response = await self._local.start_tasks(part)
            else:
                part.request_id = new_run_id()
                response = await self._start_remote(address, part)
            started = response.tasks
        except (UnavailableError, PeerFaultError) as error:
            _log.info("tasks not started", address=address, problem=str(error))
            retry = history_service_pb2.StartedTask(retry=history_service_pb2.TaskRetry())
            tasks.update(dict.fromkeys(positions, retry))
            return
        tasks.update(zip(positions, started, strict=True))

    async def _start_remote(
        self, address: str, part: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        """Start tasks at another host. Where the response was lost it has started them, and would
        call them gone when they are offered again; so the call itself is repeated, for a moment:
        what else the poll gets waits for it.
        """
        for delay in _START_DELAYS:
            try:
                return await self._at(address).start_tasks(part)
            except PeerUnavailableError as error:
                _RETRIES.labels(type(error).__name__).inc()
            await pause(delay)
        return await self._at(address).start_tasks(part)

    async def _release_at(self, shard_id: int, task_tokens: Sequence[bytes]) -> None:
        await _retry(lambda: self._at(self._locate(shard_id)).release_tasks(task_tokens))

    def _at(self, address: str | None) -> HistoryPeer:
        return self._local if address is None else RemoteHistory(self._pool, address)

    def _try_locate(self, shard_id: int) -> str | None:
        """As `locate`; a shard that nobody has is asked for here, where the answer is to wait."""
        try:
            return self._locate(shard_id)
        except ShardNotOwnedError:
            return None

    def _shard(self, namespace_id: str, workflow_id: str) -> int:
        return shard_of(namespace_id, workflow_id, self._shard_count)


class RoutedMatching:
    """Matching, wherever the task queue is."""

    def __init__(self, locate: LocateQueue, local: MatchingPeer, pool: ChannelPool) -> None:
        self._locate = locate
        self._local = local
        self._pool = pool

    async def add_tasks(self, tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
        by_queue = _group(
            tasks, lambda task: (task.namespace_id, task.task_queue, task.task_queue_type)
        )
        by_host = _group(list(by_queue), lambda queue: self._locate(*queue))
        if all(address is None for address in by_host):
            await self._local.add_tasks(tasks)
            return
        queues = list(by_queue.values())
        results = await asyncio.gather(
            *(
                self._add(
                    address, [tasks[position] for index in part for position in queues[index]]
                )
                for address, part in by_host.items()
            ),
            return_exceptions=True,
        )
        _raise_first(results)

    async def poll_workflow_tasks(
        self, namespace_id: str, request: worker_service_pb2.PollWorkflowTasksRequest
    ) -> worker_service_pb2.PollWorkflowTasksResponse:
        queue = (namespace_id, request.task_queue, task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW)
        return await _retry(lambda: self._at(queue).poll_workflow_tasks(namespace_id, request))

    async def poll_activity_tasks(
        self, namespace_id: str, request: worker_service_pb2.PollActivityTasksRequest
    ) -> worker_service_pb2.PollActivityTasksResponse:
        queue = (namespace_id, request.task_queue, task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY)
        return await _retry(lambda: self._at(queue).poll_activity_tasks(namespace_id, request))

    async def notify_cancellation(
        self, request: matching_service_pb2.NotifyCancellationRequest
    ) -> None:
        queue = (request.namespace_id, request.task_queue, task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY)
        await _retry(lambda: self._at(queue).notify_cancellation(request))

    async def shutdown_worker(self, request: matching_service_pb2.ShutdownWorkerRequest) -> None:
        queue = (request.namespace_id, request.request.task_queue, request.task_queue_type)
        await _retry(lambda: self._at(queue).shutdown_worker(request))

    async def describe_task_queue(
        self, namespace_id: str, request: operator_service_pb2.DescribeTaskQueueRequest
    ) -> operator_service_pb2.DescribeTaskQueueResponse:
        queue = (namespace_id, request.task_queue, request.task_queue_type)
        return await _retry(lambda: self._at(queue).describe_task_queue(namespace_id, request))

    async def _add(
        self, address: str | None, tasks: Sequence[matching_service_pb2.TaskRef]
    ) -> None:
        """Add tasks at one host; who offers them looks the host up anew and offers them again."""
        await self._peer_at(address).add_tasks(tasks)

    def _at(self, queue: tuple[str, str, task_queue_pb2.TaskQueueType.ValueType]) -> MatchingPeer:
        return self._peer_at(self._locate(*queue))

    def _peer_at(self, address: str | None) -> MatchingPeer:
        return self._local if address is None else RemoteMatching(self._pool, address)


async def _retry(attempt: Callable[[], Awaitable[T]]) -> T:
    """Repeat an attempt, which looks the host up anew, while the host is not the right one."""
    deadline = time.monotonic() + _RETRY_SECONDS
    delay = _FIRST_DELAY
    while True:
        try:
            return await attempt()
        except _ELSEWHERE as error:
            if time.monotonic() + delay > deadline:
                raise
            _RETRIES.labels(type(error).__name__).inc()
        # Not in step with everybody else who waits for the same shard.
        await pause(delay * random.uniform(0.5, 1.0))
        delay = min(delay * 2, _MAX_DELAY)


@cache
def _workflow_id_of(request_type: type[Message]) -> Callable[[Any], str]:
    """How to tell the workflow id from a request of a type."""
    fields = request_type.DESCRIPTOR.fields_by_name
    if "task_token" in fields:
        return lambda request: peek_task(request.task_token).workflow_id
    if "workflow_execution" in fields:
        return attrgetter("workflow_execution.workflow_id")
    return attrgetter("workflow_id")


K = TypeVar("K")


def _group(items: Sequence[T], key: Callable[[T], K]) -> Mapping[K, list[int]]:
    """The positions of the items by key; keys in order of their first item."""
    groups: dict[K, list[int]] = {}
    for position, item in enumerate(items):
        groups.setdefault(key(item), []).append(position)
    return groups


def _raise_first(results: Sequence[BaseException | None]) -> None:
    for result in results:
        if result is not None:
            raise result
