"""Runs local activities: attempts one after the other, until one ends it or the wait gets long.

Nothing of it is known to the server before the outcome is. All on the event loop's thread.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from aetheris.api.v1 import failure_pb2
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.worker_service_pb2 import ActivityTask, WorkflowTask
from aetheris_client.errors import ApplicationError
from aetheris_worker.activities.attempt import Attempt, CancelReason
from aetheris_worker.activities.caller import ActivityCaller
from aetheris_worker.activities.local_retry import decide_retry, timeout_failure
from aetheris_worker.config import WorkerConfig
from aetheris_worker.runtime.definitions import ActivityDefinition
from aetheris_worker.runtime.entry import is_cancelled
from aetheris_worker.runtime.machines.local_activity import (
    LocalActivityOutcome,
    LocalActivityRequest,
    Outcome,
)
from aetheris_worker.slots import Slots

_LOGGER: Final = logging.getLogger("aetheris.worker")

# What the server takes as one payload. What is larger would be refused again and again.
MAX_RESULT_BYTES: Final = 2 * 1024 * 1024

OnEnded = Callable[[LocalActivityOutcome | None], None]
"""Gets the outcome; None where there will be none, because the worker shuts down."""


class LocalActivityPool:
    """The places for attempts, and those that wait for one."""

    def __init__(
        self,
        config: WorkerConfig,
        definitions: Mapping[str, ActivityDefinition],
        caller: ActivityCaller,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self.config = config
        self.caller = caller
        self.spawn = spawn
        self.is_stopping = False
        self._definitions = definitions
        self._slots = Slots(config.max_concurrent_local_activities)
        self._waiting: deque[LocalRun] = deque()
        self._running: set[LocalRun] = set()

    def start(
        self, task: WorkflowTask, request: LocalActivityRequest, on_ended: OnEnded
    ) -> "LocalRun":
        """Run it. `on_ended` is called once, later, unless it is dropped."""
        run = LocalRun(self, task, request, on_ended)
        run.begin_attempt()
        return run

    def find(self, activity_type: str) -> ActivityDefinition | None:
        """The activity, if the worker has it."""
        return self._definitions.get(activity_type)

    def stop(self) -> None:
        """The worker shuts down: attempts that run may end, and none is made after another."""
        self.is_stopping = True
        for run in list(self._waiting):
            run.lose()

    # For its runs.

    def try_take(self, run: "LocalRun") -> bool:
        """A place for an attempt; one that gets none is told later that it has it."""
        if self._slots.take_nowait(1):
            self._running.add(run)
            return True
        self._waiting.append(run)
        return False

    def wait_no_longer(self, run: "LocalRun") -> None:
        """It does not want a place any more."""
        if run in self._waiting:
            self._waiting.remove(run)

    def give_back(self, run: "LocalRun") -> None:
        """Its attempt has ended; the place is for the one that has waited longest."""
        self._running.discard(run)
        self._slots.give_back()
        if self._waiting and self._slots.take_nowait(1):
            following = self._waiting.popleft()
            self._running.add(following)
            following.start_attempt()

    def abandoned(self) -> str:
        """Those that are at work, for people."""
        return ", ".join(
            f"{run.request.activity_type} (local) of workflow {run.workflow_id!r}"
            for run in self._running
        )


class LocalRun:
    """One request at work.

    Attributes:
        request: What the code asked for.
    """

    def __init__(
        self,
        pool: LocalActivityPool,
        task: WorkflowTask,
        request: LocalActivityRequest,
        on_ended: OnEnded,
    ) -> None:
        self.request = request
        self._pool = pool
        self._task = task
        self._on_ended: OnEnded | None = on_ended
        self._loop = asyncio.get_running_loop()
        self._number = request.attempt
        total = request.options.schedule_to_close_timeout
        left = math.inf if total is None else total.total_seconds() - request.elapsed
        self._end_time = self._loop.time() + left
        self._attempt: Attempt | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._last_failure: Failure | None = None
        self._is_cancel_requested = False

    @property
    def workflow_id(self) -> str:
        """Whose it is."""
        return self._task.workflow_execution.workflow_id

    def request_cancel(self) -> None:
        """The code asks it to cancel; one that is not at work has cancelled."""
        if self._is_cancel_requested or self._on_ended is None:
            return
        self._is_cancel_requested = True
        if self._attempt is not None:
            self._attempt.cancel(CancelReason.REQUESTED)
        else:
            self._end(Outcome.CANCELLED)

    def drop(self, reason: CancelReason) -> None:
        """Nobody waits for it any more."""
        self._on_ended = None
        self._stop_waiting()
        if self._attempt is not None:
            self._attempt.cancel(reason)

    def abandon(self) -> None:
        """Nobody waits for it, but it goes on."""
        self._on_ended = _ignore

    def lose(self) -> None:
        """The worker ends before it does."""
        on_ended = self._on_ended
        self.drop(CancelReason.SHUTDOWN)
        if on_ended is not None:
            self._loop.call_soon(on_ended, None)

    # Its attempts.

    def begin_attempt(self) -> None:
        """As soon as there is a place."""
        if self._pool.try_take(self):
            self.start_attempt()
            return
        limit = self.request.options.schedule_to_start_timeout
        seconds = math.inf if limit is None else limit.total_seconds()
        left = self._end_time - self._loop.time()
        if seconds < left:
            self._call_later(
                seconds, self._never_started, failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START
            )
        elif left < math.inf:
            self._call_later(left, self._never_started, failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE)

    def start_attempt(self) -> None:
        """There is a place."""
        self._stop_timer()
        definition = self._pool.find(self.request.activity_type)
        config = self._pool.config
        attempt = self._attempt = Attempt(
            self._to_task(),
            config.namespace,
            config.task_queue,
            config.converter,
            _NO_HEARTBEATS,
            is_async=definition is None or definition.is_async,
            is_local=True,
        )
        limit = self.request.options.start_to_close_timeout
        seconds = math.inf if limit is None else limit.total_seconds()
        left = self._end_time - self._loop.time()
        if min(seconds, left) < math.inf:
            timeout_type = (
                failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
                if seconds < left
                else failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
            )
            self._call_later(max(0.0, min(seconds, left)), self._time_out, timeout_type)
        self._pool.spawn(self._call(attempt, definition))

    async def _call(self, attempt: Attempt, definition: ActivityDefinition | None) -> None:
        result: Payloads | None = None
        error: BaseException | None = None
        if attempt.is_async:
            # Not before: a task cancelled before its first step would never end as it should.
            own_task = asyncio.current_task()
            assert own_task is not None
            attempt.on_cancel(own_task.cancel)
        try:
            result = await self._pool.caller.call(attempt, definition)
            _check_size(result)
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - the outcome says it
            error = raised
        attempt.close()
        self._pool.give_back(self)
        if self._attempt is attempt:
            self._attempt = None
            self._stop_timer()
            self._take(attempt, result, error)

    def _take(self, attempt: Attempt, result: Payloads | None, error: BaseException | None) -> None:
        if self._on_ended is None:
            return
        if error is None:
            self._end(Outcome.COMPLETED, result=result)
        elif is_cancelled(error) and attempt.cancel_reason is CancelReason.REQUESTED:
            self._end(Outcome.CANCELLED, result=self._pool.caller.cancel_details(error))
        else:
            _LOGGER.warning(
                "local activity %r of workflow %r failed in attempt %d",
                self.request.activity_type,
                self.workflow_id,
                self._number,
                exc_info=error,
            )
            self._fail(self._pool.caller.to_failure(error))

    def _time_out(self, timeout_type: failure_pb2.TimeoutType.ValueType) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            # Its place is free when its code has come back.
            attempt.cancel(CancelReason.GONE)
        self._fail(timeout_failure(timeout_type, self._last_failure))

    def _never_started(self, timeout_type: failure_pb2.TimeoutType.ValueType) -> None:
        self._pool.wait_no_longer(self)
        self._fail(timeout_failure(timeout_type, self._last_failure))

    def _fail(self, failure: Failure) -> None:
        if self._is_cancel_requested:
            state = failure_pb2.RETRY_STATE_CANCEL_REQUESTED
            self._end(Outcome.FAILED, failure=failure, retry_state=state)
            return
        left = self._end_time - self._loop.time()
        decided = decide_retry(self.request.options.retry_policy, failure, self._number, left)
        if not isinstance(decided, float):
            if decided == failure_pb2.RETRY_STATE_TIMEOUT:
                to_close = failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
                failure = timeout_failure(to_close, failure)
            self._end(Outcome.FAILED, failure=failure, retry_state=decided)
        elif decided > self.request.options.local_retry_threshold.total_seconds():
            self._end(Outcome.BACKING_OFF, failure=failure, backoff=decided)
        elif self._pool.is_stopping:
            self.lose()
        else:
            self._last_failure = failure
            self._call_later(decided, self._try_again)

    def _try_again(self) -> None:
        if self._pool.is_stopping:
            self.lose()
            return
        self._number += 1
        self.begin_attempt()

    def _end(self, outcome: Outcome, **fields: Any) -> None:
        on_ended, self._on_ended = self._on_ended, None
        self._stop_waiting()
        if on_ended is not None:
            on_ended(LocalActivityOutcome(self.request, self._number, outcome, **fields))

    def _stop_waiting(self) -> None:
        self._stop_timer()
        self._pool.wait_no_longer(self)

    def _call_later(self, seconds: float, callback: Callable[..., None], *args: object) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(seconds, callback, *args)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _to_task(self) -> ActivityTask:
        request = self.request
        options = request.options
        task = ActivityTask(
            workflow_execution=self._task.workflow_execution,
            workflow_type=self._task.workflow_type,
            activity_id=request.activity_id,
            input=request.arguments,
            attempt=self._number,
        )
        task.activity_type.name = request.activity_type
        task.started_time.GetCurrentTime()
        task.current_attempt_scheduled_time.CopyFrom(task.started_time)
        task.scheduled_time.CopyFrom(self._task.started_time)
        for limit, field in (
            (options.schedule_to_close_timeout, task.schedule_to_close_timeout),
            (options.start_to_close_timeout, task.start_to_close_timeout),
        ):
            _fill(field, limit)
        return task


class _NoHeartbeats:
    """A local activity's worker is the one that would hear of them."""

    last_details = None

    def beat_threadsafe(self, details: Payloads | None) -> None:
        """Nobody waits for it."""

    def answered(self) -> None:
        """None is ever on its way."""

    def drop_details(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held back."""


_NO_HEARTBEATS: Final = _NoHeartbeats()


def _fill(field: Duration, limit: timedelta | None) -> None:
    if limit is not None:
        field.FromTimedelta(limit)


def _ignore(_: LocalActivityOutcome | None) -> None:
    """What came of one that nobody waits for."""


def _check_size(result: Payloads | None) -> None:
    size = 0 if result is None else result.ByteSize()
    if size > MAX_RESULT_BYTES:
        # It would come to the same result in its next attempt.
        raise ApplicationError(
            f"the local activity's result has {size} bytes; {MAX_RESULT_BYTES} is the limit",
            type="ResultTooLarge",
            non_retryable=True,
        )
