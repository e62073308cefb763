"""A worker's decision: the commands of a completed workflow task, judged and turned into events.

All commands are recorded, in order, or none is: one that is refused fails the workflow task with
the cause that names the kind of fault.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from google.protobuf.message import Message

from aetheris.api.v1 import command_pb2, failure_pb2, history_pb2, worker_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.command_checks import (
    CommandRefusedError,
    check_activity,
    check_id,
    check_size,
    fill_activity,
)
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight, StartedWorkflowTask
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.run import ActivityState, RunState
from aetheris_server.history.state.times import (
    MAX_DURATION,
    ZERO,
    from_duration,
    is_over_maximum,
)
from aetheris_server.history.state.workflow_task import (
    append_failed,
    append_started,
    require_started,
)

_CLOSING = frozenset(
    {
        command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
        command_pb2.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
        command_pb2.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
    }
)


@dataclass(slots=True)
class Decision:
    """What a completed workflow task comes to.

    Attributes:
        refused: Why the commands were refused; then `record` is that of the failure.
        eager_event_ids: Scheduled events of the activities that the worker would take along: those
            that asked for it and are in the run's own task queue.
        cancelled_event_ids: Scheduled events of the running activities that are asked to cancel.
    """

    record: log_pb2.LogRecord
    refused: CommandRefusedError | None = None
    eager_event_ids: list[int] = field(default_factory=list[int])
    cancelled_event_ids: list[int] = field(default_factory=list[int])


def decide_completed(
    state: RunState,
    inflight: Inflight,
    request: worker_service_pb2.RespondWorkflowTaskCompletedRequest,
    start_id: str,
    now: datetime,
    limits: RunLimits,
) -> Decision:
    """Record a decision, or fail the workflow task because of it.

    Raises:
        TaskNotFoundError: The answer is stale.
    """
    started = require_started(state, inflight, start_id)
    try:
        return _Completion(state, inflight, started, request, now, limits).run()
    except CommandRefusedError as refused:
        draft = Draft(state, inflight, now)
        failure = failure_pb2.Failure(message=str(refused), source="server")
        failure.server_failure_info.non_retryable = False
        append_failed(draft, started, refused.cause, failure, request.identity)
        return Decision(draft.record, refused=refused)


class _Completion:
    """One pass over the commands, with what the earlier ones have changed for the later ones."""

    def __init__(
        self,
        state: RunState,
        inflight: Inflight,
        started: StartedWorkflowTask,
        request: worker_service_pb2.RespondWorkflowTaskCompletedRequest,
        now: datetime,
        limits: RunLimits,
    ) -> None:
        self._state = state
        self._inflight = inflight
        self._started = started
        self._request = request
        self._limits = limits
        self._draft = Draft(state, inflight, now)
        self._decision = Decision(self._draft.record)
        self._completed_id = 0
        self._closed = False
        self._new_activity_ids: set[str] = set()
        self._cancel_requested_ids: set[int] = set()
        self._open_timers: dict[str, int] = {
            timer.timer_id: timer.started_event_id for timer in state.timers.values()
        }
        self._withdrawn: set[int] = set()
        # Activities that nobody has when they are asked to cancel: they close behind the events of
        # the commands.
        self._unstarted_cancels: list[tuple[ActivityState, int]] = []

    def run(self) -> Decision:
        scheduled_id, started_id = append_started(self._draft, self._started)
        self._completed_id = self._draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
            history_pb2.WorkflowTaskCompletedEventAttributes(
                scheduled_event_id=scheduled_id,
                started_event_id=started_id,
                identity=self._request.identity,
                worker_version=self._request.worker_version,
                sdk_name=self._request.sdk_name,
                sdk_version=self._request.sdk_version,
                unhandled_signal_count=self._request.unhandled_signal_count,
            ),
        )
        self._check_history_limit()
        for index, command in enumerate(self._request.commands):
            if self._closed:
                break
            try:
                self._handle(command)
            except CommandRefusedError as refused:
                refused.command_index = index
                raise
        if self._closed:
            self._decision.eager_event_ids.clear()
        else:
            self._finish()
        return self._decision

    def _handle(self, command: command_pb2.Command) -> None:
        handler = _HANDLERS.get(command.command_type)
        if handler is None:
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FEATURE_DISABLED,
                f"{_name_of(command.command_type)} is not served by this version",
            )
        handler(self, command)

    def _finish(self) -> None:
        draft = self._draft
        for activity, requested_id in self._unstarted_cancels:
            draft.add(
                history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED,
                history_pb2.ActivityTaskCancelledEventAttributes(
                    latest_cancel_requested_event_id=requested_id,
                    scheduled_event_id=activity.scheduled_event_id,
                    identity="history",
                ),
            )
        flushed = draft.flush(frozenset(self._withdrawn))
        if flushed or self._unstarted_cancels or self._request.force_create_new_workflow_task:
            draft.schedule_workflow_task()

    def _check_history_limit(self) -> None:
        limit = self._limits.history_max_events
        commands = self._request.commands
        if self._draft.next_event_id <= limit or not commands:
            return
        if not any(command.command_type in _CLOSING for command in commands):
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_HISTORY_LIMIT_EXCEEDED,
                f"the history has reached its limit of {limit} events; continue as new",
            )

    def schedule_activity(self, command: command_pb2.Command) -> None:
        given = command.schedule_activity_task_command_attributes
        check_activity(given, self._limits)
        self._check_new_activity(given.activity_id)
        attributes = fill_activity(given, self._state.started)
        attributes.workflow_task_completed_event_id = self._completed_id
        event_id = self._draft.add(history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, attributes)
        self._new_activity_ids.add(given.activity_id)
        if given.request_eager_execution and attributes.task_queue.name == self._state.task_queue:
            self._decision.eager_event_ids.append(event_id)

    def _check_new_activity(self, activity_id: str) -> None:
        if activity_id in self._state.activity_ids or activity_id in self._new_activity_ids:
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_SCHEDULE_ACTIVITY_DUPLICATE_ID,
                f"activity_id {activity_id!r} is that of an open activity",
            )
        pending = len(self._state.activities) + len(self._new_activity_ids)
        if pending >= self._limits.max_pending_activities:
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PENDING_ACTIVITIES_LIMIT_EXCEEDED,
                f"{pending} activities are open, the most that a run may have",
            )

    def request_cancel_activity(self, command: command_pb2.Command) -> None:
        scheduled_id = command.request_cancel_activity_task_command_attributes.scheduled_event_id
        if scheduled_id in self._cancel_requested_ids:
            return
        activity = self._state.activities.get(scheduled_id)
        if activity is None:
            self._accept_late_cancel(scheduled_id)
            return
        if activity.cancel_requested_event_id:
            return
        requested_id = self._add_cancel_requested(scheduled_id)
        if scheduled_id in self._inflight.activities:
            self._decision.cancelled_event_ids.append(scheduled_id)
        else:
            self._unstarted_cancels.append((activity, requested_id))

    def _accept_late_cancel(self, scheduled_id: int) -> None:
        """The activity closed while the worker decided; its end is among the buffered events."""
        if not any(
            (
                event.event_type == history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED
                and event.activity_task_started_event_attributes.scheduled_event_id == scheduled_id
            )
            or (
                event.event_type == history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT
                and event.activity_task_timed_out_event_attributes.scheduled_event_id
                == scheduled_id
            )
            for event in self._state.buffered_events
        ):
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES,
                f"scheduled_event_id {scheduled_id} is not that of an open activity",
            )
        self._add_cancel_requested(scheduled_id)

    def _add_cancel_requested(self, scheduled_id: int) -> int:
        self._cancel_requested_ids.add(scheduled_id)
        return self._draft.add(
            history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED,
            history_pb2.ActivityTaskCancelRequestedEventAttributes(
                scheduled_event_id=scheduled_id,
                workflow_task_completed_event_id=self._completed_id,
            ),
        )

    def start_timer(self, command: command_pb2.Command) -> None:
        given = command.start_timer_command_attributes
        bad = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_START_TIMER_ATTRIBUTES
        check_id(given.timer_id, "timer_id", bad, self._limits)
        if from_duration(given.start_to_fire_timeout) <= ZERO:
            raise CommandRefusedError(bad, "start_to_fire_timeout is not more than zero")
        if is_over_maximum(given.start_to_fire_timeout):
            raise CommandRefusedError(
                bad,
                f"start_to_fire_timeout is {given.start_to_fire_timeout.seconds} s, "
                f"expected at most {MAX_DURATION}",
            )
        if given.timer_id in self._open_timers:
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_START_TIMER_DUPLICATE_ID,
                f"timer_id {given.timer_id!r} is that of an open timer",
            )
        if len(self._open_timers) >= self._limits.max_pending_timers:
            raise CommandRefusedError(
                bad, f"{len(self._open_timers)} timers are open, the most that a run may have"
            )
        self._open_timers[given.timer_id] = self._draft.add(
            history_pb2.EVENT_TYPE_TIMER_STARTED,
            history_pb2.TimerStartedEventAttributes(
                timer_id=given.timer_id,
                start_to_fire_timeout=given.start_to_fire_timeout,
                workflow_task_completed_event_id=self._completed_id,
            ),
        )

    def cancel_timer(self, command: command_pb2.Command) -> None:
        timer_id = command.cancel_timer_command_attributes.timer_id
        started_id = self._open_timers.pop(timer_id, None)
        if started_id is None:
            started_id = self._withdraw_fired(timer_id)
        self._draft.add(
            history_pb2.EVENT_TYPE_TIMER_CANCELLED,
            history_pb2.TimerCancelledEventAttributes(
                timer_id=timer_id,
                started_event_id=started_id,
                workflow_task_completed_event_id=self._completed_id,
                identity=self._request.identity,
            ),
        )

    def _withdraw_fired(self, timer_id: str) -> int:
        """The timer fired while the worker decided: the buffered event is taken back."""
        for index, event in enumerate(self._state.buffered_events):
            if (
                event.event_type == history_pb2.EVENT_TYPE_TIMER_FIRED
                and index not in self._withdrawn
            ):
                fired = event.timer_fired_event_attributes
                if fired.timer_id == timer_id:
                    self._withdrawn.add(index)
                    return fired.started_event_id
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_CANCEL_TIMER_ATTRIBUTES,
            f"timer_id {timer_id!r} is not that of an open timer",
        )

    def record_marker(self, command: command_pb2.Command) -> None:
        given = command.record_marker_command_attributes
        check_id(
            given.marker_name,
            "marker_name",
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_RECORD_MARKER_ATTRIBUTES,
            self._limits,
        )
        check_size(given, self._limits)
        marker = history_pb2.MarkerRecordedEventAttributes(
            marker_name=given.marker_name,
            details=given.details,
            workflow_task_completed_event_id=self._completed_id,
            header=given.header if given.HasField("header") else None,
            failure=given.failure if given.HasField("failure") else None,
        )
        self._draft.add(history_pb2.EVENT_TYPE_MARKER_RECORDED, marker)

    def complete_workflow(self, command: command_pb2.Command) -> None:
        given = command.complete_workflow_execution_command_attributes
        self._prepare_close(given)
        self._draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
            history_pb2.WorkflowExecutionCompletedEventAttributes(
                result=given.result if given.HasField("result") else None,
                workflow_task_completed_event_id=self._completed_id,
            ),
        )

    def fail_workflow(self, command: command_pb2.Command) -> None:
        given = command.fail_workflow_execution_command_attributes
        self._prepare_close(given)
        if not given.HasField("failure"):
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_FAIL_WORKFLOW_EXECUTION_ATTRIBUTES,
                "failure is not set",
            )
        self._draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
            history_pb2.WorkflowExecutionFailedEventAttributes(
                failure=given.failure,
                retry_state=failure_pb2.RETRY_STATE_RETRY_POLICY_NOT_SET,
                workflow_task_completed_event_id=self._completed_id,
            ),
        )

    def cancel_workflow(self, command: command_pb2.Command) -> None:
        given = command.cancel_workflow_execution_command_attributes
        self._prepare_close(given)
        self._draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED,
            history_pb2.WorkflowExecutionCancelledEventAttributes(
                workflow_task_completed_event_id=self._completed_id,
                details=given.details if given.HasField("details") else None,
            ),
        )

    def _prepare_close(self, given: Message) -> None:
        check_size(given, self._limits)
        if len(self._state.buffered_events) > len(self._withdrawn):
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
                "the run cannot close: events came that its code has not seen",
            )
        self._draft.flush(frozenset(self._withdrawn))
        self._closed = True


def _name_of(command_type: int) -> str:
    """The enum's name for it, or the number of one from a later version."""
    known = {number: name for name, number in command_pb2.CommandType.items()}
    return known.get(cast("command_pb2.CommandType.ValueType", command_type), str(command_type))


_HANDLERS: dict[int, Callable[[_Completion, command_pb2.Command], None]] = {
    command_pb2.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK: _Completion.schedule_activity,
    command_pb2.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK: _Completion.request_cancel_activity,
    command_pb2.COMMAND_TYPE_START_TIMER: _Completion.start_timer,
    command_pb2.COMMAND_TYPE_CANCEL_TIMER: _Completion.cancel_timer,
    command_pb2.COMMAND_TYPE_RECORD_MARKER: _Completion.record_marker,
    command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION: _Completion.complete_workflow,
    command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION: _Completion.fail_workflow,
    command_pb2.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION: _Completion.cancel_workflow,
}
