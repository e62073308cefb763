"""One activity of a run, as its workflow sees it.

An activity that is cancelled in the activation that scheduled it leaves no command at all. Where
the code itself cancelled it (by `handle.cancel()`, with the task that waits for it, or by the end
of an asyncio.timeout) its handle is cancelled like any future of asyncio: timeouts and task groups
go by that. ActivityError caused by CancelledError is an activity that cancelled unasked.
"""

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any, Final, TypeVar, cast

from google.protobuf.duration_pb2 import Duration

from aetheris.api.v1 import command_pb2, failure_pb2, history_pb2, workflow_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure, RetryState
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.workflow_pb2 import ActivityDelivery
from aetheris_client.failure import from_failure
from aetheris_client.options import check_options, check_text
from aetheris_client.retry import RetryPolicy
from aetheris_worker.durations import check_timeout
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.errors import HistoryError, fault_behind
from aetheris_worker.runtime.futures import WorkflowFuture
from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.parts import Parts, RunPart, RunScope
from aetheris_worker.runtime.transitions import next_state

R = TypeVar("R")


class ActivityCancellationType(enum.Enum):
    """What the workflow does about an activity that it cancels."""

    TRY_CANCEL = enum.auto()
    """Ask it to cancel, and go on at once."""
    WAIT_CANCELLATION_COMPLETED = enum.auto()
    """Ask it to cancel, and go on when it has ended, however it ends."""
    ABANDON = enum.auto()
    """Go on at once and let it run."""


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """How an activity is to be run; at least one of schedule_to_close and start_to_close is set."""

    task_queue: str
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    cancellation_type: ActivityCancellationType
    capabilities: Sequence[str]
    at_most_once: bool

    def check(self, activity_type: str) -> None:
        """Refuse what the server would refuse, where the code asks for it.

        Raises:
            TypeError: An option is of the wrong kind.
            ValueError: A timeout is out of range, neither schedule_to_close nor start_to_close is
                set, or a text is none that UTF-8 can tell.
        """
        check_text("the name of an activity", activity_type)
        if self.start_to_close_timeout is None and self.schedule_to_close_timeout is None:
            raise ValueError(
                f"activity {activity_type!r}: expected start_to_close_timeout or "
                "schedule_to_close_timeout"
            )
        check_timeout("schedule_to_close_timeout", self.schedule_to_close_timeout)
        check_timeout("schedule_to_start_timeout", self.schedule_to_start_timeout)
        check_timeout("start_to_close_timeout", self.start_to_close_timeout)
        check_timeout("heartbeat_timeout", self.heartbeat_timeout)
        # Whatever type checkers think: what is not checked here fails the task again and again.
        check_options("activity", task_queue=self.task_queue, capabilities=self.capabilities)
        policy = cast(object, self.retry_policy)
        if policy is not None and not isinstance(policy, RetryPolicy):
            raise TypeError(
                f"activity: option 'retry_policy': expected a RetryPolicy, found {policy!r}"
            )


class ActivityStage(IntEnum):
    """Where an activity stands, in the eyes of its workflow."""

    SCHEDULING = 1
    WITHDRAWN = 2
    SCHEDULED = 3
    CANCELLING = 4
    CANCEL_REQUESTED = 5
    ABANDONED = 6
    CLOSED = 7


class ActivityInput(IntEnum):
    """What can happen to it."""

    SCHEDULE_RECORDED = 1
    CANCEL = 2
    ABANDON = 3
    CANCEL_RECORDED = 4
    CLOSE = 5


TRANSITIONS: Final[dict[tuple[ActivityStage, ActivityInput], ActivityStage]] = {
    (ActivityStage.SCHEDULING, ActivityInput.SCHEDULE_RECORDED): ActivityStage.SCHEDULED,
    (ActivityStage.SCHEDULING, ActivityInput.CANCEL): ActivityStage.WITHDRAWN,
    (ActivityStage.SCHEDULING, ActivityInput.ABANDON): ActivityStage.WITHDRAWN,
    (ActivityStage.SCHEDULED, ActivityInput.CANCEL): ActivityStage.CANCELLING,
    (ActivityStage.SCHEDULED, ActivityInput.ABANDON): ActivityStage.ABANDONED,
    (ActivityStage.SCHEDULED, ActivityInput.CLOSE): ActivityStage.CLOSED,
    (ActivityStage.CANCELLING, ActivityInput.CANCEL_RECORDED): ActivityStage.CANCEL_REQUESTED,
    # Asking again asks for nothing new: the request is on its way.
    (ActivityStage.CANCELLING, ActivityInput.CANCEL): ActivityStage.CANCELLING,
    (ActivityStage.CANCEL_REQUESTED, ActivityInput.CANCEL): ActivityStage.CANCEL_REQUESTED,
    (ActivityStage.CANCEL_REQUESTED, ActivityInput.CLOSE): ActivityStage.CLOSED,
    (ActivityStage.ABANDONED, ActivityInput.CLOSE): ActivityStage.CLOSED,
}


class ActivityHandle(WorkflowFuture[R]):
    """A scheduled activity: await it for its result. `cancel` as its cancellation_type says."""

    def __init__(self, loop: WorkflowLoop, activity_id: str, cancel: Callable[[], bool]) -> None:
        super().__init__(loop, loop.next_hash())
        self.activity_id = activity_id
        self._cancel_activity: Callable[[], bool] | None = cancel
        self._cancel_message: object = None

    def cancel(self, msg: object = None) -> bool:
        """Ask the activity to cancel; False if it has ended already.

        Who awaits the handle gets asyncio.CancelledError: at once, or, with
        WAIT_CANCELLATION_COMPLETED, when the activity has cancelled; if it ends otherwise after
        all, its result or error.
        """
        if self.done() or self._cancel_activity is None:
            return False
        self._cancel_message = msg
        if self._cancel_activity():
            super().cancel(msg)
        return True

    def end_cancelled(self) -> None:
        """The activity has cancelled, as it was asked to."""
        super().cancel(self._cancel_message)

    def let_go(self) -> None:
        """The activity has ended: there is nothing left to cancel, nor a reason to refer to it."""
        self._cancel_activity = None


class ActivityMachine:
    """Sends ScheduleActivityTask, and RequestCancelActivityTask if it is cancelled in time."""

    def __init__(
        self,
        activity_id: str,
        activity_type: str,
        arguments: Payloads | None,
        options: ActivityOptions,
        result_type: object,
        scope: RunScope,
        open_activities: "dict[int, ActivityMachine]",
    ) -> None:
        self.activity_id = activity_id
        self.activity_type = activity_type
        self.arguments = arguments
        self.options = options
        self.scheduled_event_id = 0
        self.state = ActivityStage.SCHEDULING
        self.handle: ActivityHandle[Any] = ActivityHandle(scope.loop, activity_id, self.cancel)
        self._is_cancel_asked = False
        self._result_type = result_type
        self._scope = scope
        self._open_activities = open_activities
        scope.commands.add(ScheduleActivityCommand(self))

    def cancel(self) -> bool:
        """The code does not want it any more; whether it waits no longer either."""
        self._scope.loop.check_writable("cancelling an activity")
        was = self.state
        how = self.options.cancellation_type
        abandons = how is ActivityCancellationType.ABANDON
        self.move(ActivityInput.ABANDON if abandons else ActivityInput.CANCEL)
        if was is ActivityStage.SCHEDULED and self.state is ActivityStage.CANCELLING:
            self._scope.commands.add(RequestCancelActivityCommand(self))
        self._is_cancel_asked = True
        return (
            self.state is ActivityStage.WITHDRAWN
            or how is not ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
        )

    def mark_scheduled(self, event: HistoryEvent) -> None:
        """The event of its command is in the history."""
        self.scheduled_event_id = event.event_id
        self.move(ActivityInput.SCHEDULE_RECORDED)
        self._open_activities[event.event_id] = self

    def close(self, event: HistoryEvent) -> None:
        """The event that ends it is in the history."""
        self.move(ActivityInput.CLOSE)
        self.handle.let_go()
        if self.handle.done():
            return
        match event.event_type:
            case history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
                self._complete(event.activity_task_completed_event_attributes.result)
            case history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED:
                failed = event.activity_task_failed_event_attributes
                self._fail(
                    failed.failure, failed.started_event_id, failed.identity, failed.retry_state
                )
            case history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT:
                timed_out = event.activity_task_timed_out_event_attributes
                self._fail(timed_out.failure, timed_out.started_event_id, "", timed_out.retry_state)
            case history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED if self._is_cancel_asked:
                self.handle.end_cancelled()
            case history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED:
                cancelled = event.activity_task_cancelled_event_attributes
                self._fail(
                    _cancelled_failure(cancelled.details),
                    cancelled.started_event_id,
                    cancelled.identity,
                    failure_pb2.RETRY_STATE_CANCEL_REQUESTED,
                )
            case _:
                raise HistoryError(f"event {event.event_id} does not close an activity")

    def move(self, cause: ActivityInput) -> None:
        """Follow the table."""
        self.state = next_state(TRANSITIONS, self.state, cause, f"activity {self.activity_id!r}")

    def _complete(self, result: Payloads) -> None:
        # Types are code too: a default that they take from the clock would be another on replay.
        was_guarded = guard.enter()
        try:
            values = self._scope.converter.from_payloads(result, [self._result_type])
        except Exception as error:  # noqa: BLE001 - converters raise what they please
            self.handle.set_exception(fault_behind(error))
        else:
            self.handle.set_result(values[0] if values else None)
        finally:
            guard.leave(was_guarded)

    def _fail(
        self,
        cause: Failure,
        started_event_id: int,
        identity: str,
        retry_state: RetryState.ValueType,
    ) -> None:
        failure = Failure(message=f"activity {self.activity_type!r} failed", cause=cause)
        info = failure.activity_failure_info
        info.scheduled_event_id = self.scheduled_event_id
        info.started_event_id = started_event_id
        info.identity = identity
        info.activity_type.name = self.activity_type
        info.activity_id = self.activity_id
        info.retry_state = retry_state
        self.handle.set_exception(from_failure(failure, self._scope.converter))


class Activities(RunPart):
    """The activities of one run.

    Attributes:
        open: Those whose events are known and that have not ended, by those events.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.open: dict[int, ActivityMachine] = {}
        self._count = 0

    @property
    def is_waiting(self) -> bool:
        return bool(self.open)

    def schedule(
        self,
        activity_type: str,
        arguments: Sequence[object],
        options: ActivityOptions,
        activity_id: str | None,
        argument_types: Sequence[object],
        result_type: object,
    ) -> ActivityHandle[Any]:
        """Schedule one.

        Raises:
            ValueError: See ActivityOptions.check.
            PayloadEncodeError: An argument has no encoding.
        """
        scope = self.scope
        scope.loop.check_writable("scheduling an activity")
        options.check(activity_type)
        check_options("activity", activity_id=activity_id)
        payloads = scope.converter.to_payloads(arguments, argument_types)
        self._count += 1
        machine = ActivityMachine(
            activity_id or str(self._count),
            activity_type,
            payloads,
            options,
            result_type,
            scope,
            self.open,
        )
        return machine.handle

    def close(self, scheduled_event_id: int, event: HistoryEvent) -> None:
        """The event is in the history: the activity has ended."""
        machine = self.open.pop(scheduled_event_id, None)
        if machine is None:
            raise HistoryError(
                f"event {event.event_id} ends the activity of event {scheduled_event_id}, "
                "which is not open"
            )
        machine.close(event)


class ScheduleActivityCommand:
    """Run it."""

    event_type: int = history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED

    def __init__(self, activity: ActivityMachine) -> None:
        self._activity = activity

    @property
    def is_withdrawn(self) -> bool:
        return self._activity.state is ActivityStage.WITHDRAWN

    def to_proto(self) -> Command:
        activity = self._activity
        options = activity.options
        command = Command(command_type=command_pb2.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK)
        attributes = command.schedule_activity_task_command_attributes
        attributes.activity_id = activity.activity_id
        attributes.activity_type.name = activity.activity_type
        attributes.task_queue.name = options.task_queue
        if activity.arguments is not None:
            attributes.input.CopyFrom(activity.arguments)
        for timeout, duration in (
            (options.schedule_to_close_timeout, attributes.schedule_to_close_timeout),
            (options.schedule_to_start_timeout, attributes.schedule_to_start_timeout),
            (options.start_to_close_timeout, attributes.start_to_close_timeout),
            (options.heartbeat_timeout, attributes.heartbeat_timeout),
        ):
            if timeout is not None:
                _set_duration(duration, timeout)
        if options.retry_policy is not None:
            attributes.retry_policy.CopyFrom(options.retry_policy.to_proto())
        attributes.capabilities.extend(options.capabilities)
        attributes.delivery = _delivery(options)
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        scheduled = event.activity_task_scheduled_event_attributes
        return (
            scheduled.activity_id == self._activity.activity_id
            and scheduled.activity_type.name == self._activity.activity_type
        )

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._activity.mark_scheduled(event)

    def describe(self) -> str:
        activity = self._activity
        return f"scheduled activity {activity.activity_id!r} of type {activity.activity_type!r}"


class RequestCancelActivityCommand:
    """Ask it to cancel."""

    event_type: int = history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED
    is_withdrawn: bool = False

    def __init__(self, activity: ActivityMachine) -> None:
        self._activity = activity

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK)
        attributes = command.request_cancel_activity_task_command_attributes
        attributes.scheduled_event_id = self._activity.scheduled_event_id
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        requested = event.activity_task_cancel_requested_event_attributes
        return requested.scheduled_event_id == self._activity.scheduled_event_id

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._activity.move(ActivityInput.CANCEL_RECORDED)

    def describe(self) -> str:
        activity = self._activity
        return (
            f"asked activity {activity.activity_id!r} of type {activity.activity_type!r} "
            f"(event {activity.scheduled_event_id}) to cancel"
        )


def _delivery(options: ActivityOptions) -> ActivityDelivery.ValueType:
    if options.at_most_once:
        return workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE
    return workflow_pb2.ACTIVITY_DELIVERY_AT_LEAST_ONCE


def _cancelled_failure(details: Payloads) -> Failure:
    failure = Failure(message="cancelled")
    failure.cancelled_failure_info.details.CopyFrom(details)
    return failure


def _set_duration(field: Duration, value: timedelta) -> None:
    # Duration.FromTimedelta does the same in four times the time.
    field.seconds = value.days * 86_400 + value.seconds
    field.nanos = value.microseconds * 1_000


def _completed(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    attributes = event.activity_task_completed_event_attributes
    parts.make(Activities).close(attributes.scheduled_event_id, event)


def _failed(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    attributes = event.activity_task_failed_event_attributes
    parts.make(Activities).close(attributes.scheduled_event_id, event)


def _timed_out(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    attributes = event.activity_task_timed_out_event_attributes
    parts.make(Activities).close(attributes.scheduled_event_id, event)


def _cancelled(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    attributes = event.activity_task_cancelled_event_attributes
    parts.make(Activities).close(attributes.scheduled_event_id, event)


def _describe_scheduled(event: HistoryEvent) -> str:
    scheduled = event.activity_task_scheduled_event_attributes
    return f"activity {scheduled.activity_id!r} of type {scheduled.activity_type.name!r}"


def _describe_cancel_requested(event: HistoryEvent) -> str:
    requested = event.activity_task_cancel_requested_event_attributes
    return f"a request to cancel the activity of event {requested.scheduled_event_id}"


MACHINE: Final = Machine(
    name="activity",
    commands={
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: _describe_scheduled,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED: _describe_cancel_requested,
    },
    events={
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: _completed,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED: _failed,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: _timed_out,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED: _cancelled,
    },
    ignored=frozenset({history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED}),
)
