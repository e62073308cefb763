"""Asks the server for tasks, again and again.

A poll asks for as many tasks as there are free slots, so a busy worker pays one call for many. When
polls fail, they are repeated with growing pauses, however long it takes: a worker outlives its
server.
"""

import asyncio
import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

import grpc

from aetheris.api.v1.worker_service_pb2 import (
    ActivityCancellation,
    ActivityTask,
    PollActivityTasksRequest,
    PollActivityTasksResponse,
    PollWorkflowTasksRequest,
    PollWorkflowTasksResponse,
    WorkflowTask,
)
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris_client.rpc_errors import from_rpc_error
from aetheris_worker.config import WorkerConfig
from aetheris_worker.slots import Slots

Response = TypeVar("Response")
Task = TypeVar("Task")

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


class PollLoop(ABC, Generic[Response]):
    """Polls until it is stopped.

    Polls are numbered, and each names the last one whose answer came: what others were answered
    with, the server gives to other workers.

    Attributes:
        received_number: The last poll whose answer came; 0 for none.
    """

    def __init__(self, name: str, slots: Slots) -> None:
        self._name = name
        self._slots = slots
        self._call: grpc.aio.UnaryUnaryCall[Any, Response] | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._number = 0
        self.received_number = 0

    @abstractmethod
    def begin_poll(self) -> "grpc.aio.UnaryUnaryCall[Any, Response]":
        """Ask for tasks; there is at least one free slot."""

    @abstractmethod
    def end_poll(self, response: Response | None) -> None:
        """Take what came; None if the poll failed."""

    async def run(self) -> None:
        """Poll until `stop`.

        Raises:
            RpcError: The first poll was refused for what it asks.
        """
        self._task = asyncio.current_task()
        succeeded = False
        attempt = 0
        while not self._is_stopping:
            try:
                await self._poll()
            except grpc.aio.AioRpcError as error:
                if not succeeded and error.code() in _FATAL:
                    raise from_rpc_error(error) from error
                if attempt == 0:
                    self._log_failure(error)
                attempt += 1
                await asyncio.sleep(_backoff(attempt))
                continue
            succeeded = True
            if attempt:
                _LOGGER.info("%s polls succeed again", self._name)
                attempt = 0

    def stop(self) -> None:
        """Ask for no more. Tasks that have arrived already are still taken: cancelling `run` would
        lose them, and the server would wait for them until they time out.
        """
        self._is_stopping = True
        if self._call is not None:
            self._call.cancel()
        elif self._task is not None:
            self._task.cancel()

    async def _poll(self) -> None:
        await self._slots.wait_free()
        response: Response | None = None
        self._number += 1
        self._call = self.begin_poll()
        try:
            response = await self._call
            self.received_number = self._number
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if not self._is_stopping:
                # Only the poll was cancelled: taken for this task's end, it would pass in silence.
                raise RuntimeError("the connection was closed") from error
        finally:
            self._call = None
            self.end_poll(response)

    def _hand_over(self, handle: Callable[[Task], None], task: Task) -> None:
        """Whatever the handler raises, the polls go on."""
        try:
            handle(task)
        except (Exception, asyncio.CancelledError):
            _LOGGER.exception("a task of the %s poll could not be handled", self._name)
            self._slots.give_back()

    def _log_failure(self, error: grpc.aio.AioRpcError) -> None:
        _LOGGER.warning(
            "%s polls fail, trying on: %s: %s", self._name, error.code().name, error.details()
        )


class WorkflowPollLoop(PollLoop[PollWorkflowTasksResponse]):
    """Polls the shared and the sticky queue for workflow tasks."""

    def __init__(
        self,
        stub: WorkerServiceStub,
        config: WorkerConfig,
        slots: Slots,
        handle: Callable[[WorkflowTask], None],
    ) -> None:
        super().__init__("workflow", slots)
        self._stub = stub
        self._handle = handle
        self._request = PollWorkflowTasksRequest(
            namespace=config.namespace,
            task_queue=config.task_queue,
            sticky_task_queue=config.sticky_task_queue,
            capabilities=config.capabilities,
            identity=config.identity,
            worker_instance_id=config.instance_id,
            worker_version=config.build_id,
        )
        self._request.poll_timeout.FromSeconds(int(POLL_TIMEOUT))

    def begin_poll(self) -> "grpc.aio.UnaryUnaryCall[Any, PollWorkflowTasksResponse]":
        self._request.max_tasks = min(self._slots.free_count, _MAX_TASKS)
        self._request.poll_number = self._number
        self._request.received_poll_number = self.received_number
        return self._stub.PollWorkflowTasks(self._request, timeout=POLL_TIMEOUT + _SPARE_TIMEOUT)

    def end_poll(self, response: PollWorkflowTasksResponse | None) -> None:
        if response is not None:
            for task in response.tasks:
                self._slots.take_one_more()
                self._hand_over(self._handle, task)


class ActivityPollLoop(PollLoop[PollActivityTasksResponse]):
    """Polls for activity tasks, and for word that running ones should cancel.

    Half of the free slots are kept for a poll, so that what it brings has a place; the other half
    is for activities that come with decisions.
    """

    def __init__(
        self,
        stub: WorkerServiceStub,
        config: WorkerConfig,
        slots: Slots,
        start: Callable[[ActivityTask], None],
        cancel: Callable[[ActivityCancellation], None],
    ) -> None:
        super().__init__("activity", slots)
        self._stub = stub
        self._start = start
        self._cancel = cancel
        self._kept_count = 0
        self._request = PollActivityTasksRequest(
            namespace=config.namespace,
            task_queue=config.task_queue,
            capabilities=config.capabilities,
            identity=config.identity,
            worker_instance_id=config.instance_id,
            worker_version=config.build_id,
        )
        self._request.poll_timeout.FromSeconds(int(POLL_TIMEOUT))

    def begin_poll(self) -> "grpc.aio.UnaryUnaryCall[Any, PollActivityTasksResponse]":
        half = (self._slots.free_count + 1) // 2
        self._kept_count = self._slots.take_nowait(min(half, _MAX_TASKS))
        self._request.max_tasks = self._kept_count
        self._request.poll_number = self._number
        self._request.received_poll_number = self.received_number
        return self._stub.PollActivityTasks(self._request, timeout=POLL_TIMEOUT + _SPARE_TIMEOUT)

    def end_poll(self, response: PollActivityTasksResponse | None) -> None:
        response = response or PollActivityTasksResponse()
        self._slots.give_back(self._kept_count - len(response.tasks))
        for task in response.tasks:
            self._hand_over(self._start, task)
        for cancellation in response.cancellations:
            self._cancel(cancellation)


def _backoff(attempt: int) -> float:
    ceiling = min(_MAX_BACKOFF, _FIRST_BACKOFF * 2 ** min(attempt - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)
