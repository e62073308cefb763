"""Asks the server for tasks, again and again.

A poll asks for as many tasks as there are free slots, so a busy worker pays one call for many. When
polls fail, they are repeated with growing pauses, however long it takes: a worker outlives its
server.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final

import grpc

from aetheris.api.v1.worker_service_pb2 import (
    ActivityCancellation,
    ActivityTask,
    PollActivityTasksRequest,
    PollWorkflowTasksRequest,
    WorkflowTask,
)
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris_client.rpc_errors import from_rpc_error
from aetheris_worker.config import SDK_VERSION, WorkerConfig
from aetheris_worker.slots import Slots

_LOGGER: Final = logging.getLogger("aetheris.worker")

POLL_TIMEOUT: Final = 60.0
# The server answers an empty poll in time; a connection that died in silence does not.
_SPARE_TIMEOUT: Final = 10.0
_FIRST_BACKOFF: Final = 0.05
_MAX_BACKOFF: Final = 2.0
_MAX_TASKS: Final = 1_000

# Before the first poll succeeded, these are mistakes of the set-up, which waiting will not repair.
_FATAL: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)


class WorkflowPoller:
    """Polls the shared and the sticky queue for workflow tasks."""

    def __init__(
        self,
        stub: WorkerServiceStub,
        config: WorkerConfig,
        slots: Slots,
        handle: Callable[[WorkflowTask], None],
    ) -> None:
        self._stub = stub
        self._slots = slots
        self._handle = handle
        self._request = PollWorkflowTasksRequest(
            namespace=config.namespace,
            task_queue=config.task_queue,
            sticky_task_queue=config.sticky_task_queue,
            capabilities=config.capabilities,
            identity=config.identity,
            worker_instance_id=config.instance_id,
            worker_version=SDK_VERSION,
        )
        self._request.poll_timeout.FromSeconds(int(POLL_TIMEOUT))

    async def poll(self) -> None:
        """One poll, and its tasks."""
        await self._slots.wait_free()
        self._request.max_tasks = min(self._slots.free_count, _MAX_TASKS)
        response = await self._stub.PollWorkflowTasks(
            self._request, timeout=POLL_TIMEOUT + _SPARE_TIMEOUT
        )
        for task in response.tasks:
            self._slots.take_one_more()
            self._handle(task)


class ActivityPoller:
    """Polls for activity tasks, and for word that running ones should cancel."""

    def __init__(
        self,
        stub: WorkerServiceStub,
        config: WorkerConfig,
        slots: Slots,
        start: Callable[[ActivityTask], None],
        cancel: Callable[[ActivityCancellation], None],
    ) -> None:
        self._stub = stub
        self._slots = slots
        self._start = start
        self._cancel = cancel
        self._request = PollActivityTasksRequest(
            namespace=config.namespace,
            task_queue=config.task_queue,
            capabilities=config.capabilities,
            identity=config.identity,
            worker_instance_id=config.instance_id,
            worker_version=SDK_VERSION,
        )
        self._request.poll_timeout.FromSeconds(int(POLL_TIMEOUT))

    async def poll(self) -> None:
        """One poll, and its tasks.

        Half of the free slots are kept for it, so that what it brings has a place; the other half
        is for activities that come with decisions.
        """
        await self._slots.wait_free()
        kept = self._slots.take_nowait(min((self._slots.free_count + 1) // 2, _MAX_TASKS))
        self._request.max_tasks = kept
        try:
            response = await self._stub.PollActivityTasks(
                self._request, timeout=POLL_TIMEOUT + _SPARE_TIMEOUT
            )
            kept -= len(response.tasks)
        finally:
            self._slots.give_back(kept)
        for task in response.tasks:
            self._start(task)
        for cancellation in response.cancellations:
            self._cancel(cancellation)


async def poll_forever(name: str, poll: Callable[[], Awaitable[None]]) -> None:
    """Poll until cancelled.

    Args:
        name: For the log.
        poll: One poll.

    Raises:
        RpcError: The first poll was refused for what it asks.
    """
    succeeded = False
    attempt = 0
    while True:
        try:
            await poll()
        except grpc.aio.AioRpcError as error:
            if not succeeded and error.code() in _FATAL:
                raise from_rpc_error(error) from error
            if attempt == 0:
                _LOGGER.warning(
                    "%s polls fail, trying on: %s: %s", name, error.code().name, error.details()
                )
            attempt += 1
            await asyncio.sleep(_backoff(attempt))
            continue
        succeeded = True
        if attempt:
            _LOGGER.info("%s polls succeed again", name)
            attempt = 0


def _backoff(attempt: int) -> float:
    ceiling = min(_MAX_BACKOFF, _FIRST_BACKOFF * 2 ** min(attempt - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)
