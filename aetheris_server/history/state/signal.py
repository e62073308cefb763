"""Signals and requests to cancel.

Recorded once per request id, which is never empty; shown to the code in recorded order.
"""

from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.state.close import require_open
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.workflow_task import append_failed


def decide_signaled(
    state: RunState,
    inflight: Inflight,
    request: workflow_service_pb2.SignalWorkflowRequest,
    now: datetime,
    limits: RunLimits,
) -> log_pb2.LogRecord | None:
    """Record a signal; None if this request has been recorded.

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
        append_failed(
            draft,
            inflight.workflow_task,
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
            failure_pb2.Failure(
                message="too many events came while a worker had the workflow task"
            ),
            "history",
        )
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
        history_pb2.WorkflowExecutionSignaledEventAttributes(
            signal_name=request.signal_name,
            input=request.input if request.HasField("input") else None,
            identity=request.identity,
            request_id=request.request_id,
            header=request.header if request.HasField("header") else None,
        ),
    )
    draft.ensure_workflow_task()
    return draft.record


def decide_cancel_requested(
    state: RunState,
    inflight: Inflight,
    request: workflow_service_pb2.CancelWorkflowRequest,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Record a request to cancel; None if cancellation has been requested.

    A delayed start does not delay it: the code runs at once and can cancel.

    Raises:
        WorkflowClosedError: The run has closed, and not after this very request.
    """
    if state.cancel_requested and request.request_id == state.cancel_request_id:
        return None
    require_open(state)
    if state.cancel_requested:
        return None
    draft = Draft(state, inflight, now)
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED,
        history_pb2.WorkflowExecutionCancelRequestedEventAttributes(
            reason=request.reason, identity=request.identity, request_id=request.request_id
        ),
    )
    if state.first_task_time is not None:
        draft.schedule_workflow_task()
    else:
        draft.ensure_workflow_task()
    return draft.record


def _is_buffer_full(state: RunState, limits: RunLimits) -> bool:
    return (
        len(state.buffered_events) >= limits.max_buffered_events
        or state.buffered_bytes >= limits.max_buffered_bytes
    )
