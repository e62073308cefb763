"""How a run closes: by its own command, by its deadline, or from outside."""

from collections.abc import Callable
from datetime import datetime

from google.protobuf.message import Message

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    history_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import WorkflowClosedError
from aetheris_server.history.state.command_checks import CommandRefusedError, check_size
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.lifecycle.successor import (
    decide_run_retry,
    find_next_run_id,
    next_run_id,
    timed_out_failure,
)
from aetheris_server.history.state.machines.workflow_task.ending import append_force_closed
from aetheris_server.history.state.retry import RetryDecision
from aetheris_server.history.state.run import RunState


def require_open(state: RunState) -> None:
    """Refuse what only an open run takes.

    Raises:
        WorkflowClosedError: The run has closed.
    """
    if not state.is_open:
        raise WorkflowClosedError(state.key.workflow_id, state.key.run_id)


# The commands of the run's code.


def complete_workflow(commands: CommandPass, command: command_pb2.Command) -> None:
    """The code returned."""
    given = command.complete_workflow_execution_command_attributes
    prepare_close(commands, given)
    commands.draft.close(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
        history_pb2.WorkflowExecutionCompletedEventAttributes(
            result=given.result if given.HasField("result") else None,
            workflow_task_completed_event_id=commands.completed_id,
        ),
    )


def fail_workflow(commands: CommandPass, command: command_pb2.Command) -> None:
    """The code raised."""
    given = command.fail_workflow_execution_command_attributes
    prepare_close(commands, given)
    if not given.HasField("failure"):
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_FAIL_WORKFLOW_EXECUTION_ATTRIBUTES,
            "failure is not set, expected one",
        )
    retry = decide_run_retry(commands.state, given.failure, commands.draft.now)
    commands.draft.close(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
        history_pb2.WorkflowExecutionFailedEventAttributes(
            failure=given.failure,
            retry_state=retry.state,
            workflow_task_completed_event_id=commands.completed_id,
            new_execution_run_id=_id_if_any(commands.state, retry),
        ),
    )


def cancel_workflow(commands: CommandPass, command: command_pb2.Command) -> None:
    """The code ended because the run was asked to cancel."""
    given = command.cancel_workflow_execution_command_attributes
    prepare_close(commands, given)
    commands.draft.close(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED,
        history_pb2.WorkflowExecutionCancelledEventAttributes(
            workflow_task_completed_event_id=commands.completed_id,
            details=given.details if given.HasField("details") else None,
        ),
    )


def prepare_close(commands: CommandPass, given: Message) -> None:
    """Refuse a command that cannot close the run; show in its history what was withdrawn.

    Raises:
        CommandRefusedError: It carries too much, or events came that the code has not seen.
    """
    check_size(given, commands.limits)
    if commands.has_unseen_events:
        raise CommandRefusedError(
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
            "the run cannot close: events came that its code has not seen",
        )
    commands.flush()


# From outside, and by its deadline.


def decide_terminated(
    state: RunState,
    inflight: Inflight,
    reason: str,
    details: common_pb2.Payloads | None,
    identity: str,
    request_id: str,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Close the run at once; None if this request has closed it.

    Raises:
        WorkflowClosedError: The run has closed otherwise.
    """
    closed = state.close_event
    if closed is not None and closed.HasField("workflow_execution_terminated_event_attributes"):
        terminated = closed.workflow_execution_terminated_event_attributes
        if request_id and terminated.request_id == request_id:
            return None
    require_open(state)
    draft = Draft(state, inflight, now)
    append_force_closed(draft, inflight)
    draft.close(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
        history_pb2.WorkflowExecutionTerminatedEventAttributes(
            reason=reason, details=details, identity=identity, request_id=request_id
        ),
    )
    return draft.record


def append_run_timed_out(draft: Draft, state: RunState, inflight: Inflight) -> None:
    """Close the run because its deadline has passed."""
    append_force_closed(draft, inflight)
    retry = decide_run_retry(state, timed_out_failure(), draft.now)
    draft.close(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
        history_pb2.WorkflowExecutionTimedOutEventAttributes(
            retry_state=retry.state, new_execution_run_id=_id_if_any(state, retry)
        ),
    )


def _id_if_any(state: RunState, retry: RetryDecision) -> str:
    return next_run_id(state.key.run_id) if retry.next_attempt_time is not None else ""


def closes_as(
    status: "workflow_pb2.WorkflowExecutionStatus.ValueType",
) -> Callable[[RunState, history_pb2.HistoryEvent], None]:
    """What an event changes that gives the run a final status."""

    def close(state: RunState, event: history_pb2.HistoryEvent) -> None:
        state.status = status
        state.close_event = event

    return close


def to_result(state: RunState) -> workflow_service_pb2.WorkflowResult:
    """How a closed run ended, as clients see it."""
    event = state.close_event
    assert event is not None
    result = workflow_service_pb2.WorkflowResult(
        status=state.status,
        close_time=event.event_time,
        new_execution_run_id=find_next_run_id(event),
    )
    match event.event_type:
        case history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            result.result.CopyFrom(event.workflow_execution_completed_event_attributes.result)
        case history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            result.failure.CopyFrom(event.workflow_execution_failed_event_attributes.failure)
        case history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED:
            cancelled = event.workflow_execution_cancelled_event_attributes
            result.failure.message = "workflow cancelled"
            result.failure.cancelled_failure_info.details.CopyFrom(cancelled.details)
        case history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
            terminated = event.workflow_execution_terminated_event_attributes
            result.failure.message = terminated.reason or "workflow terminated"
            result.failure.terminated_failure_info.SetInParent()
        case history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
            result.failure.CopyFrom(timed_out_failure())
        case history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
            pass
        case _:
            raise ValueError(f"event type {event.event_type} does not close a run")
    return result
