"""Runs attempts and hands in their answers."""

import asyncio
import functools
import logging
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, assert_never

from aetheris.api.v1 import worker_service_pb2, workflow_pb2
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
from aetheris_client.errors import ApplicationError
from aetheris_client.failure import trimmed
from aetheris_worker.activities.attempt import Attempt, CancelReason
from aetheris_worker.activities.caller import ActivityCaller
from aetheris_worker.activities.calls import CompleteAsyncError
from aetheris_worker.activities.heartbeat import Heartbeater, interval_of
from aetheris_worker.activities.info import seconds_of
from aetheris_worker.answers import AnswerSender, is_passing_error
from aetheris_worker.config import WorkerConfig
from aetheris_worker.runtime.definitions import ActivityDefinition
from aetheris_worker.runtime.entry import is_cancelled
from aetheris_worker.slots import Slots

_LOGGER: Final = logging.getLogger("aetheris.worker")

_INVALID_ARGUMENT: Final = 3
_NOT_FOUND: Final = 5
_RESOURCE_EXHAUSTED: Final = 8
# What is too large, for example, remains so.
_FOR_GOOD: Final = (_INVALID_ARGUMENT, _RESOURCE_EXHAUSTED)

_REASONS: Final[Mapping[int, CancelReason]] = {
    worker_service_pb2.ACTIVITY_CANCELLATION_REASON_PAUSED: CancelReason.PAUSED,
    worker_service_pb2.ACTIVITY_CANCELLATION_REASON_RESET: CancelReason.RESET,
}

# Run, event that scheduled it, and attempt number.
_Key = tuple[str, int, int]


class ActivityRunner:
    """Owns the running attempts. Each occupies one slot, until its answer is with the server."""

    def __init__(
        self,
        config: WorkerConfig,
        definitions: Mapping[str, ActivityDefinition],
        sender: AnswerSender,
        caller: ActivityCaller,
        slots: Slots,
        handle_workflow_task: Callable[[WorkflowTask], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._config = config
        self._definitions = definitions
        self._sender = sender
        self._caller = caller
        self._slots = slots
        self._handle_workflow_task = handle_workflow_task
        self._spawn = spawn
        self._attempts: dict[_Key, Attempt] = {}
        self._asks_for_more = True
        self._ended_count = 0

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
        if running is not None:
            # The server could not know that the first copy had arrived.
            _LOGGER.info("activity %r came twice; it is running", task.activity_type.name)
            self._slots.give_back()
            return
        number = _number(task)
        if number > 1:
            # The server has given up on the earlier ones: nobody waits for them any more.
            for earlier in self._attempts_of(key[:2]):
                if _number(earlier.task) < number:
                    earlier.cancel(CancelReason.GONE)
        definition = self._definitions.get(task.activity_type.name)
        attempt = self._new_attempt(task, is_async=definition is None or definition.is_async)
        self._attempts[key] = attempt
        self._spawn(self._run(attempt, definition))

    def cancel(self, cancellation: ActivityCancellation) -> None:
        """The server asks for it."""
        activity = (cancellation.workflow_execution.run_id, cancellation.scheduled_event_id)
        if cancellation.attempt:
            attempt = self._attempts.get((*activity, cancellation.attempt))
            attempts = [] if attempt is None else [attempt]
        else:
            attempts = self._attempts_of(activity)
        for attempt in attempts:
            attempt.cancel(_REASONS.get(cancellation.reason, CancelReason.REQUESTED))

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

    def abandoned(self) -> str:
        """The running attempts, for people."""
        return ", ".join(
            f"{attempt.task.activity_type.name} of workflow "
            f"{attempt.task.workflow_execution.workflow_id!r}"
            + ("" if attempt.is_async else ", whose thread goes on until the process ends")
            for attempt in self._attempts.values()
        )

    @property
    def ended_count(self) -> int:
        """Attempts that have ended so far."""
        return self._ended_count

    # One attempt.

    def _attempts_of(self, activity: tuple[str, int]) -> list[Attempt]:
        return [attempt for key, attempt in self._attempts.items() if key[:2] == activity]

    def _new_attempt(self, task: ActivityTask, *, is_async: bool) -> Attempt:
        heartbeats = Heartbeater(
            asyncio.get_running_loop(),
            interval_of(seconds_of(task.heartbeat_timeout)),
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
        time_up = self._cancel_when_time_is_up(attempt)
        try:
            if self._config.converter.codec is not None:
                await self._config.converter.codec.decode_message(task)
            result = await self._caller.call(attempt, definition)
            completed = answer.activity_task_completed
            completed.task_token = task.task_token
            completed.identity = self._config.identity
            if self._asks_for_more:
                completed.sticky_task_queue = self._config.sticky_task_queue
            completed.worker_instance_id = self._config.instance_id
            if result is not None:
                completed.result.CopyFrom(result)
        except CompleteAsyncError:
            # Whoever goes on with it answers. Its place is free.
            pass
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the answer says it
            self._answer_error(attempt, answer, error)
        if time_up is not None:
            time_up.cancel()
        attempt.close()
        self._ended_count += 1
        if self._attempts.get(_key(task)) is attempt:
            del self._attempts[_key(task)]
        if answer.WhichOneof("answer") is None:
            self._slots.give_back()
            return
        self._sender.send_nowait(answer, functools.partial(self._on_answered, attempt, answer))

    def _cancel_when_time_is_up(self, attempt: Attempt) -> asyncio.TimerHandle | None:
        # Code that sends no heartbeat hears nothing of the server's timeout: it would go on beside
        # the next attempt, in a slot that others need. The server's time began earlier than this.
        task = attempt.task
        limits = (
            seconds_of(task.start_to_close_timeout) or math.inf,
            seconds_of(task.schedule_to_close_timeout) or math.inf,
        )
        limit = min(limits)
        if limit == math.inf:
            return None
        return asyncio.get_running_loop().call_later(limit, attempt.cancel, CancelReason.TIMED_OUT)

    def _answer_error(self, attempt: Attempt, answer: TaskAnswer, error: BaseException) -> None:
        """Say how it ended; nothing where nobody waits for it."""
        task = attempt.task
        reason = attempt.cancel_reason if is_cancelled(error) else None
        match reason:
            case CancelReason.GONE | CancelReason.TIMED_OUT:
                return
            case CancelReason.REQUESTED:
                cancelled = answer.activity_task_cancelled
                cancelled.task_token = task.task_token
                cancelled.identity = self._config.identity
                details = self._caller.cancel_details(error)
                if details is not None:
                    cancelled.details.CopyFrom(details)
                return
            case CancelReason.PAUSED:
                error = ApplicationError(reason.value, type="ActivityPause")
            case CancelReason.RESET:
                error = ApplicationError(reason.value, type="ActivityReset")
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
            case _:
                assert_never(reason)
        self._fill_failed(answer, attempt, self._caller.to_failure(error))

    def _fill_failed(self, answer: TaskAnswer, attempt: Attempt, failure: Failure) -> None:
        failed = answer.activity_task_failed
        failed.task_token = attempt.task.task_token
        failed.identity = self._config.identity
        failed.failure.CopyFrom(failure)
        details = attempt.last_details()
        if details is not None:
            failed.last_heartbeat_details.CopyFrom(details)

    def _on_answered(self, attempt: Attempt, answer: TaskAnswer, result: TaskAnswerResult) -> None:
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
        if error.code in _FOR_GOOD and not attempt.was_refused:
            attempt.was_refused = True
            smaller = self._smaller(attempt, answer, error.message)
            self._slots.take_one_more()
            deliver = functools.partial(self._on_answered, attempt, smaller)
            self._sender.send_nowait(smaller, deliver)

    def _smaller(self, attempt: Attempt, refused: TaskAnswer, reason: str) -> TaskAnswer:
        """What to say instead: better that now than a timeout later."""
        answer = TaskAnswer()
        if refused.HasField("activity_task_completed"):
            # It would come to the same result in its next attempt.
            refusal = ApplicationError(reason, type="AnswerRefused", non_retryable=True)
            self._fill_failed(answer, attempt, self._caller.to_failure(refusal))
        elif refused.HasField("activity_task_failed"):
            answer.CopyFrom(refused)
            failed = answer.activity_task_failed
            failed.failure.CopyFrom(trimmed(failed.failure, reason))
            failed.ClearField("last_heartbeat_details")
        else:
            answer.CopyFrom(refused)
            answer.activity_task_cancelled.ClearField("details")
        return answer

    def _send_heartbeat(self, task: ActivityTask, details: Payloads | None) -> None:
        answer = TaskAnswer()
        heartbeat = answer.activity_task_heartbeat
        heartbeat.task_token = task.task_token
        heartbeat.identity = self._config.identity
        if details is not None:
            heartbeat.details.CopyFrom(details)
        key = _key(task)
        self._sender.send_nowait(
            answer,
            functools.partial(self._on_heartbeat, task),
            # The answer of a closed attempt says it all.
            is_wanted=lambda: key in self._attempts,
        )

    def _on_heartbeat(self, task: ActivityTask, result: TaskAnswerResult) -> None:
        attempt = self._attempts.get(_key(task))
        if attempt is None or attempt.task is not task:
            return
        error = result.error
        if error.code == _NOT_FOUND:
            attempt.cancel(CancelReason.GONE)
        elif _is_refused(result) and attempt.drop_heartbeat_details():
            _LOGGER.warning(
                "heartbeats of activity %r go on without details, which were refused: %s",
                task.activity_type.name,
                error.message,
            )
        told = result.activity_task_heartbeat
        if told.cancel_requested:
            attempt.cancel(CancelReason.REQUESTED)
        if told.activity_reset:
            attempt.cancel(CancelReason.RESET)
        if told.activity_paused:
            attempt.cancel(CancelReason.PAUSED)
        attempt.heartbeat_answered()


def _is_refused(result: TaskAnswerResult) -> bool:
    """Whether the server takes it at no time."""
    return result.HasField("error") and (
        result.error.code in _FOR_GOOD or not is_passing_error(result)
    )


def _key(task: ActivityTask) -> _Key:
    return task.workflow_execution.run_id, task.scheduled_event_id, _number(task)


def _number(task: ActivityTask) -> int:
    """What tells the attempts of an activity apart; servers of before have the attempt alone."""
    return task.attempt_number or task.attempt
