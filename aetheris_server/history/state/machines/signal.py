"""Signals: messages from outside to the run's code.

    a request ──► recorded (buffered while a worker decides) ──► shown to the code

Recorded once per request id, which is never empty; shown to the code in recorded order. A request
that starts a run has its signal in the record that begins it. A closed run knows its requests
still, so that a repeated one is not refused.
"""

from datetime import datetime

from aetheris.api.v1 import common_pb2, failure_pb2, history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, state_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machine import Machine, OnEvent
from aetheris_server.history.state.machines.lifecycle.close import require_open
from aetheris_server.history.state.machines.workflow_task.ending import append_failed
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.state.run import RunState

_REQUEST_BYTES = 128
"""What the memory of a request takes beside its id."""


def decide_signaled(
    state: RunState,
    inflight: Inflight,
    request: workflow_service_pb2.SignalWorkflowRequest,
    now: datetime,
    limits: RunLimits,
    *,
    ends_delay: bool = False,
    sender: common_pb2.WorkflowExecution | None = None,
) -> log_pb2.LogRecord | None:
    """Record a signal, which another run may have sent; None if this request has been recorded.

    One that `ends_delay` has the code of a run whose start is delayed called now.

    Raises:
        WorkflowClosedError: The run has closed.
        InvalidArgumentError: The run has had too many signals.
    """
    if request.request_id in state.request_ids:
        return None
    require_open(state)
    if state.signal_count >= limits.max_signals:
        raise InvalidArgumentError(
            "signal_name",
            f"the run has had {state.signal_count} signals; {limits.max_signals} is the limit",
        )
    draft = Draft(state, inflight, now)
    if inflight.workflow_task is not None and _is_buffer_full(state, limits):
        _end_task(draft, inflight.workflow_task)
    append_signaled(draft, request, sender)
    if ends_delay and state.first_task_time is not None:
        draft.schedule_workflow_task()
    else:
        draft.ensure_workflow_task()
    return draft.record


def append_signaled(
    draft: Draft,
    request: workflow_service_pb2.SignalWorkflowRequest,
    sender: common_pb2.WorkflowExecution | None = None,
) -> None:
    """Append the signal's event, or buffer it."""
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
        history_pb2.WorkflowExecutionSignaledEventAttributes(
            signal_name=request.signal_name,
            input=request.input if request.HasField("input") else None,
            identity=request.identity,
            request_id=request.request_id,
            header=request.header if request.HasField("header") else None,
            external_workflow_execution=sender,
        ),
    )


def _is_buffer_full(state: RunState, limits: RunLimits) -> bool:
    return (
        len(state.buffered_events) >= limits.max_buffered_events
        or state.buffered_bytes >= limits.max_buffered_bytes
    )


def _end_task(draft: Draft, started: StartedWorkflowTask) -> None:
    failure = failure_pb2.Failure(
        message="too many events came while a worker had the workflow task"
    )
    cause = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND
    append_failed(draft, started, cause, failure, "history")


def _signaled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    request_id = event.workflow_execution_signaled_event_attributes.request_id
    if request_id not in state.request_ids:
        _remember(state, request_id)
        state.signal_count += 1


def _remember(state: RunState, request_id: str) -> None:
    state.request_ids.add(request_id)
    state.held_bytes += _REQUEST_BYTES + len(request_id)


def _save(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    snapshot.request_ids.extend(sorted(state.request_ids))
    snapshot.signal_count = state.signal_count


def _load(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    for request_id in snapshot.request_ids:
        _remember(state, request_id)
    state.signal_count = snapshot.signal_count


MACHINE = Machine(
    name="signal",
    events={history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: OnEvent(_signaled)},
    save=_save,
    load=_load,
)
