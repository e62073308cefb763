"""Peers that find the host: by the run's shard for history, by the task queue for matching.

Where a host turns out not to be the owner, or does not answer, its address is looked up again and
the request repeated for a few seconds. That is safe: a write is idempotent under its request id or
its task token. Who owns what is the `locate` function's affair; it may change from call to call.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from aetheris.api.v1 import task_queue_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
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
from aetheris_server.rpc.peers import START_TIMEOUT, LocalHistory, LocalMatching
from aetheris_server.rpc.remote import RemoteHistory, RemoteMatching
from aetheris_server.rpc.table import HistoryMethod, MatchingMethod
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.telemetry import counter, get_logger

__all__ = ["LocateQueue", "LocateShard", "RoutedHistory", "RoutedMatching"]

S = TypeVar("S")
T = TypeVar("T")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

LocateShard = Callable[[int], str | None]
"""The address of a shard's host; None for this one, which is also asked where none is known."""

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


class RoutedHistory:
    """History, wherever the run's shard is."""

    def __init__(
        self,
        locate: LocateShard,
        local: LocalHistory,
        pool: ChannelPool,
        shard_count: int,
        tokens: Tokens,
    ) -> None:
        self._locate = locate
        self._local = local
        self._pool = pool
        self._shard_count = shard_count
        self._tokens = tokens

    async def call(self, method: HistoryMethod[S, Q, R], subject: S, request: Q) -> R:
        """See `HistoryPeer.call`."""
        shard_id = shard_of(*method.key_of(subject, request), self._shard_count)
        begin, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                address = self._locate(shard_id)
                if address is None:
                    return await self._local.handler_of(method)(subject, request)
                return await RemoteHistory(self._pool, address).call(method, subject, request)
            except _ELSEWHERE as error:
                delay = await _wait_for_owner(error, begin, delay)

    async def start_tasks(
        self, request: history_service_pb2.StartTasksRequest
    ) -> history_service_pb2.StartTasksResponse:
        shards = [
            shard_of(task.namespace_id, task.workflow_id, self._shard_count)
            for task in request.tasks
        ]
        hosts = _group(shards, self._locate)
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
        tokens = [self._tokens.open_task(token) for token in task_tokens]
        by_shard = _group(
            tokens,
            lambda token: shard_of(token.namespace_id, token.workflow_id, self._shard_count),
        )
        results = await asyncio.gather(
            *(
                self._release_at(
                    shard_id,
                    [task_tokens[position] for position in positions],
                    [tokens[position] for position in positions],
                )
                for shard_id, positions in by_shard.items()
            ),
            return_exceptions=True,
        )
        _raise_first(results)

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
            async with asyncio.timeout(START_TIMEOUT):
                if address is None:
                    response = await self._local.start_tasks(part)
                else:
                    part.request_id = new_run_id()
                    response = await self._start_remote(address, part)
            started = response.tasks
        except (UnavailableError, PeerFaultError, TimeoutError) as error:
            _log.info("tasks not started", address=address, problem=str(error) or "no answer")
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
                return await RemoteHistory(self._pool, address).start_tasks(part)
            except PeerUnavailableError as error:
                _RETRIES.labels(type(error).__name__).inc()
            await pause(delay)
        return await RemoteHistory(self._pool, address).start_tasks(part)

    async def call_aggregates(
        self, calls: Sequence[history_service_pb2.AggregateCall]
    ) -> Sequence[history_service_pb2.CallOutcome]:
        """See `CallPeer.call_aggregates`."""
        hosts = _group(
            calls,
            lambda call: self._locate(
                shard_of(call.target.namespace_id, call.target.name, self._shard_count)
            ),
        )
        if len(hosts) == 1:
            return await self._call_at(next(iter(hosts)), calls)
        outcomes: dict[int, history_service_pb2.CallOutcome] = {}
        async with asyncio.TaskGroup() as parts:
            for address, positions in hosts.items():
                parts.create_task(self._call_part(address, calls, positions, outcomes))
        return [outcomes[position] for position in range(len(calls))]

    async def _call_part(
        self,
        address: str | None,
        calls: Sequence[history_service_pb2.AggregateCall],
        positions: Sequence[int],
        outcomes: dict[int, history_service_pb2.CallOutcome],
    ) -> None:
        part = await self._call_at(address, [calls[position] for position in positions])
        outcomes.update(zip(positions, part, strict=True))

    async def _call_at(
        self, address: str | None, calls: Sequence[history_service_pb2.AggregateCall]
    ) -> Sequence[history_service_pb2.CallOutcome]:
        """Call what is at one host; who owes the calls looks it up anew and calls again."""
        try:
            if address is None:
                return await self._local.call_aggregates(calls)
            return await RemoteHistory(self._pool, address).call_aggregates(calls)
        except (UnavailableError, PeerFaultError) as error:
            _log.info("aggregates not called", address=address, problem=str(error))
            retry = history_service_pb2.CallOutcome(retry=history_service_pb2.CallRetry())
            return [retry] * len(calls)

    async def _release_at(
        self, shard_id: int, task_tokens: Sequence[bytes], tokens: Sequence[TaskToken]
    ) -> None:
        """Release tasks of one shard.

        Args:
            shard_id: Of all of them.
            task_tokens: As another host takes them.
            tokens: The same, opened.
        """
        begin, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                address = self._locate(shard_id)
                if address is None:
                    await self._local.release_tasks(tokens)
                else:
                    await RemoteHistory(self._pool, address).release_tasks(task_tokens)
                return
            except _ELSEWHERE as error:
                delay = await _wait_for_owner(error, begin, delay)


class RoutedMatching:
    """Matching, wherever the task queue is."""

    def __init__(self, locate: LocateQueue, local: LocalMatching, pool: ChannelPool) -> None:
        self._locate = locate
        self._local = local
        self._pool = pool

    async def call(self, method: MatchingMethod[Q, R], request: Q) -> R:
        """See `MatchingPeer.call`."""
        queue = method.queue_of(request)
        begin, delay = time.monotonic(), _FIRST_DELAY
        while True:
            try:
                address = self._locate(*queue)
                if address is None:
                    return await self._local.handler_of(method)(request)
                return await RemoteMatching(self._pool, address).call(method, request)
            except _ELSEWHERE as error:
                delay = await _wait_for_owner(error, begin, delay)

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

    async def _add(
        self, address: str | None, tasks: Sequence[matching_service_pb2.TaskRef]
    ) -> None:
        """Add tasks at one host; who offers them looks the host up anew and offers them again."""
        if address is None:
            await self._local.add_tasks(tasks)
        else:
            await RemoteMatching(self._pool, address).add_tasks(tasks)


async def _wait_for_owner(error: UnavailableError, begin: float, delay: float) -> float:
    """Wait a moment, after which the host is to be looked up anew.

    Args:
        error: Of the attempt that has just failed.
        begin: When the first attempt began, by `time.monotonic`.
        delay: Seconds to wait at most.

    Returns:
        The delay of the next time.

    Raises:
        UnavailableError: The error itself: it has gone on for too long.
    """
    if time.monotonic() + delay > begin + _RETRY_SECONDS:
        raise error
    _RETRIES.labels(type(error).__name__).inc()
    # Not in step with everybody else who waits for the same shard.
    await pause(delay * random.uniform(0.5, 1.0))
    return min(delay * 2, _MAX_DELAY)


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
