"""Runs attempts and hands in their answers."""

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Final, cast

from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1.command_pb2 import ScheduleActivityTaskCommandAttributes
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.worker_service_pb2 import (
    ActivityCancellation,
    ActivityTask,
    TaskAnswer,
    TaskAnswerResult,
    WorkflowTask,
)
from aetheris_client.codec import decode_message
from aetheris_client.errors import ApplicationError, CancelledError, PayloadEncodeError
from aetheris_client.failure import to_failure
from aetheris_worker.activities.attempt import CURRENT, Attempt, CancelReason
from aetheris_worker.activities.heartbeat import Heartbeater, interval_of
from aetheris_worker.activities.info import timeout_of
from aetheris_worker.answers import AnswerSender
from aetheris_worker.config import CODEC_TIMEOUT, WorkerConfig
from aetheris_worker.runtime.definitions import ActivityDefinition
from aetheris_worker.runtime.entry import is_cancelled
from aetheris_worker.runtime.signatures import signature_of
from aetheris_worker.slots import Slots

_LOGGER: Final = logging.getLogger("aetheris.worker")

_INVALID_ARGUMENT: Final = 3
_NOT_FOUND: Final = 5
_RESOURCE_EXHAUSTED: Final = 8

_Key = tuple[str, int]


class ActivityRunner:
    """Owns the running attempts. Each occupies one slot, until its answer is with the server."""

    def __init__(
        self,
        config: WorkerConfig,
        definitions: Mapping[str, ActivityDefinition],
        sender: AnswerSender,
        executor: Executor | None,
        slots: Slots,
        handle_workflow_task: Callable[[WorkflowTask], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._config = config
        self._definitions = definitions
        self._sender = sender
        self._executor = executor
        self._slots = slots
        self._handle_workflow_task = handle_workflow_task
        self._spawn = spawn
        self._attempts: dict[_Key, Attempt] = {}
        self._asks_for_more = True

    # What the workflow side asks for.

    def try_reserve(self, scheduled: ScheduleActivityTaskCommandAttributes) -> bool:
        """Keep a slot, if the activity could run here and there is one."""
        if (
            not self._asks_for_more
            or scheduled.activity_type.name not in self._definitions
            or scheduled.task_queue.name not in ("", self._config.task_queue)
            # The server gives these out through the queue only: their start must be on disk first.
            or scheduled.delivery == workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE
            or not set(self._config.capabilities).issuperset(scheduled.capabilities)
        ):
            return False
        return self._slots.take_nowait(1) == 1

    def release(self, count: int) -> None:
        """Slots kept in vain."""
        self._slots.give_back(count)

    # What the poller brings.

    def start(self, task: ActivityTask) -> None:
        """Run an attempt, in a slot that the caller has taken for it."""
        key = _key(task)
        running = self._attempts.get(key)
        if running is not None and running.task.attempt == task.attempt:
            # The server could not know that the first copy had arrived.
            _LOGGER.info("activity %r came twice; it is running", task.activity_type.name)
            self._slots.give_back()
            return
        definition = self._definitions.get(task.activity_type.name)
        attempt = self._new_attempt(task, is_async=definition is None or definition.is_async)
        self._attempts[key] = attempt
        self._spawn(self._run(attempt, definition))

    def cancel(self, cancellation: ActivityCancellation) -> None:
        """The server asks for it."""
        key = (cancellation.workflow_execution.run_id, cancellation.scheduled_event_id)
        attempt = self._attempts.get(key)
        if attempt is not None:
            attempt.cancel(CancelReason.REQUESTED)

    # What the worker's shutdown needs.

    def stop_asking(self) -> None:
        """Ask for no more tasks along with answers."""
        self._asks_for_more = False

    def cancel_all(self) -> None:
        """The worker shuts down: what is still running should stop."""
        for attempt in list(self._attempts.values()):
            attempt.cancel(CancelReason.SHUTDOWN)

    def running_types(self) -> list[str]:
        """Activity types of the running attempts."""
        return [attempt.task.activity_type.name for attempt in self._attempts.values()]

    # One attempt.

    def _new_attempt(self, task: ActivityTask, *, is_async: bool) -> Attempt:
        heartbeats = Heartbeater(
            asyncio.get_running_loop(),
            interval_of(timeout_of(task.heartbeat_timeout)),
            functools.partial(self._send_heartbeat, task),
        )
        return Attempt(
            task,
            self._config.namespace,
            self._config.task_queue,
            self._config.converter,
            heartbeats,
            is_async=is_async,
        )

    async def _run(self, attempt: Attempt, definition: ActivityDefinition | None) -> None:
        task = attempt.task
        answer = TaskAnswer()
        if attempt.is_async:
            # Not before: a task cancelled before its first step would never answer.
            own_task = asyncio.current_task()
            assert own_task is not None
            attempt.on_cancel(own_task.cancel)
        try:
            result = await self._call(attempt, definition)
            completed = answer.activity_task_completed
            completed.task_token = task.task_token
            completed.identity = self._config.identity
            if self._asks_for_more:
                completed.sticky_task_queue = self._config.sticky_task_queue
            completed.worker_instance_id = self._config.instance_id
            if result is not None:
                completed.result.CopyFrom(result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the answer says it
            self._answer_error(attempt, answer, error)
        attempt.close()
        if self._attempts.get(_key(task)) is attempt:
            del self._attempts[_key(task)]
        if answer.WhichOneof("answer") is None:
            self._slots.give_back()
            return
        self._sender.send_nowait(answer, functools.partial(self._on_answered, attempt))

    async def _call(
        self, attempt: Attempt, definition: ActivityDefinition | None
    ) -> Payloads | None:
        task = attempt.task
        if definition is None:
            raise ApplicationError(
                f"activity type {task.activity_type.name!r} is not registered here; "
                f"there are {sorted(self._definitions)}",
                type="ActivityNotRegistered",
            )
        converter = self._config.converter
        if converter.codec is not None:
            async with asyncio.timeout(CODEC_TIMEOUT):
                await decode_message(converter.codec, task)
        types = signature_of(definition.function).argument_types
        arguments = converter.from_payloads(task.input, types)
        # This task's context is its own: nothing else sees the variable.
        CURRENT.set(attempt)
        if definition.is_async:
            function = cast(Callable[..., Coroutine[Any, Any, object]], definition.function)
            return converter.to_payloads([await function(*arguments)])
        call = functools.partial(contextvars.copy_context().run, definition.function, *arguments)
        loop = asyncio.get_running_loop()
        return converter.to_payloads([await loop.run_in_executor(self._executor, call)])

    def _answer_error(self, attempt: Attempt, answer: TaskAnswer, error: BaseException) -> None:
        """Say how it ended; nothing where nobody waits for it."""
        task = attempt.task
        reason = attempt.cancel_reason if is_cancelled(error) else None
        match reason:
            case CancelReason.GONE:
                return
            case CancelReason.REQUESTED:
                cancelled = answer.activity_task_cancelled
                cancelled.task_token = task.task_token
                cancelled.identity = self._config.identity
                details = self._cancel_details(error)
                if details is not None:
                    cancelled.details.CopyFrom(details)
                return
            case CancelReason.SHUTDOWN:
                error = ApplicationError("the worker shut down", type="WorkerShutdown")
            case None:
                _LOGGER.warning(
                    "activity %r of workflow %r failed in attempt %d",
                    task.activity_type.name,
                    task.workflow_execution.workflow_id,
                    task.attempt,
                    exc_info=error,
                )
        self._fill_failed(answer, attempt, self._to_failure(error))

    def _fill_failed(self, answer: TaskAnswer, attempt: Attempt, failure: Failure) -> None:
        failed = answer.activity_task_failed
        failed.task_token = attempt.task.task_token
        failed.identity = self._config.identity
        failed.failure.CopyFrom(failure)
        details = attempt.last_details()
        if details is not None:
            failed.last_heartbeat_details.CopyFrom(details)

    def _to_failure(self, error: BaseException) -> Failure:
        if isinstance(error, asyncio.CancelledError):
            error = ApplicationError("the activity cancelled itself", type="CancelledError")
        try:
            return to_failure(error, self._config.converter)
        except PayloadEncodeError:
            return Failure(message=str(error))

    def _cancel_details(self, error: BaseException) -> Payloads | None:
        if not isinstance(error, CancelledError):
            return None
        try:
            return self._config.converter.to_payloads(error.details)
        except PayloadEncodeError:
            return None

    def _on_answered(self, attempt: Attempt, result: TaskAnswerResult) -> None:
        self._slots.give_back()
        if not result.HasField("error"):
            completed = result.activity_task_completed
            if completed.HasField("workflow_task"):
                self._handle_workflow_task(completed.workflow_task)
            return
        error = result.error
        name = attempt.task.activity_type.name
        if error.code == _NOT_FOUND:
            # It timed out, or its run has closed.
            _LOGGER.info("the answer of activity %r came too late: %s", name, error.message)
            return
        _LOGGER.warning("the answer of activity %r was refused: %s", name, error.message)
        if error.code in (_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED) and not attempt.was_refused:
            # A result that is too large, for example: better a failure now than a timeout later.
            attempt.was_refused = True
            refusal = ApplicationError(error.message, type="AnswerRefused", non_retryable=True)
            answer = TaskAnswer()
            self._fill_failed(answer, attempt, self._to_failure(refusal))
            self._slots.take_one_more()
            self._sender.send_nowait(answer, functools.partial(self._on_answered, attempt))

    def _send_heartbeat(self, task: ActivityTask, details: Payloads | None) -> None:
        answer = TaskAnswer()
        heartbeat = answer.activity_task_heartbeat
        heartbeat.task_token = task.task_token
        heartbeat.identity = self._config.identity
        if details is not None:
            heartbeat.details.CopyFrom(details)
        self._sender.send_nowait(answer, functools.partial(self._on_heartbeat, task))

    def _on_heartbeat(self, task: ActivityTask, result: TaskAnswerResult) -> None:
        attempt = self._attempts.get(_key(task))
        if attempt is None or attempt.task is not task:
            return
        if result.HasField("error"):
            if result.error.code == _NOT_FOUND:
                attempt.cancel(CancelReason.GONE)
            return
        if result.activity_task_heartbeat.cancel_requested:
            attempt.cancel(CancelReason.REQUESTED)


def _key(task: ActivityTask) -> _Key:
    return task.workflow_execution.run_id, task.scheduled_event_id
