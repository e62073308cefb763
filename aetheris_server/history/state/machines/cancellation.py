"""Requests to cancel the run, which its code may answer as it likes.

    none ──a request──► requested (buffered while a worker decides)

Once requested it stays so; further requests change nothing.
"""

from datetime import datetime

from aetheris.api.v1 import common_pb2, history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, state_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent
from aetheris_server.history.state.machines.lifecycle.close import require_open
from aetheris_server.history.state.run import RunState


def decide_cancel_requested(
    state: RunState,
    inflight: Inflight,
    request: workflow_service_pb2.CancelWorkflowRequest,
    now: datetime,
    sender: common_pb2.WorkflowExecution | None = None,
    sender_event_id: int = 0,
) -> log_pb2.LogRecord | None:
    """Record a request to cancel, which an event of another run may have asked for; None if
    cancellation has been requested.

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
            reason=request.reason,
            identity=request.identity,
            request_id=request.request_id,
            external_initiated_event_id=sender_event_id,
            external_workflow_execution=sender,
        ),
    )
    if state.first_task_time is not None:
        draft.schedule_workflow_task()
    else:
        draft.ensure_workflow_task()
    return draft.record


def _requested(state: RunState, event: history_pb2.HistoryEvent) -> None:
    state.cancel_request_id = event.workflow_execution_cancel_requested_event_attributes.request_id
    state.cancel_requested = True


def _save(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    snapshot.cancel_requested = state.cancel_requested
    snapshot.cancel_request_id = state.cancel_request_id


def _load(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    state.cancel_requested = snapshot.cancel_requested
    state.cancel_request_id = snapshot.cancel_request_id


def _describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    response.cancel_requested = state.cancel_requested


MACHINE = Machine(
    name="cancellation",
    events={history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED: OnEvent(_requested)},
    save=_save,
    load=_load,
    describe=_describe,
)
