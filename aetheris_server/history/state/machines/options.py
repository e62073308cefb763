"""Settings of the run that are changed from outside: the build that its workflow tasks go to.

    unpinned ──a start, a request──► pinned to a build ──a request──► pinned to another
        ▲                                   │                                │
        └──────────────a request────────────┴────────────────────────────────┘

What holds counts from the record of the request on. A workflow task that waits is offered anew; one
that a worker has is decided by it, and the next one goes to where the run is pinned by then.
Recorded once per request id, of which the last are known.
"""

from datetime import datetime

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, machines_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent, TaskRefs
from aetheris_server.history.state.machines.lifecycle.close import require_open
from aetheris_server.history.state.machines.workflow_task import tasks
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.run_options import RunOptions, has_recorded, pinned_build_id

_MAX_REQUEST_IDS = 100
_REQUEST_BYTES = 128
"""What the memory of a request takes beside its id."""


def decide_options_updated(
    state: RunState,
    inflight: Inflight,
    request: workflow_service_pb2.UpdateWorkflowOptionsRequest,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Record what is to hold; None if this request has been recorded, or it holds already.

    A workflow task that is tried again becomes a first attempt: another build may do what this one
    could not.

    Raises:
        WorkflowClosedError: The run has closed, and not after this very request.
    """
    if has_recorded(state, request.request_id):
        return None
    require_open(state)
    if request.pinned_build_id == pinned_build_id(state):
        return None
    draft = Draft(state, inflight, now)
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED,
        history_pb2.WorkflowExecutionOptionsUpdatedEventAttributes(
            identity=request.identity,
            request_id=request.request_id,
            pinned_build_id=request.pinned_build_id,
            reason=request.reason,
        ),
    )
    task = state.workflow_task
    if task is not None and task.is_transient:
        draft.ensure_workflow_task()
    return draft.record


def _updated(state: RunState, event: history_pb2.HistoryEvent) -> None:
    attributes = event.workflow_execution_options_updated_event_attributes
    options = state.parts.find(RunOptions)
    if options is None:
        options = state.parts.make(RunOptions)
        options.pinned_build_id = state.started.pinned_build_id
        state.held_bytes += _byte_count(options)
    before = _byte_count(options)
    if attributes.HasField("pinned_build_id"):
        options.pinned_build_id = attributes.pinned_build_id
    if attributes.request_id not in options.request_ids:
        options.request_ids.append(attributes.request_id)
        del options.request_ids[:-_MAX_REQUEST_IDS]
    state.held_bytes += _byte_count(options) - before


def _byte_count(options: RunOptions) -> int:
    requests = sum(_REQUEST_BYTES + len(request_id) for request_id in options.request_ids)
    return _REQUEST_BYTES + len(options.pinned_build_id) + requests


def _offered_anew(
    state: RunState, inflight: Inflight, event: history_pb2.HistoryEvent, now: datetime
) -> TaskRefs:
    """The task that waits, for workers of another build than before; one that the same record has
    brought is offered as its own event says.
    """
    task = state.workflow_task
    if task is None or task.scheduled_event_id > event.event_id:
        return ()
    return tasks.obligations(state, inflight, now)


def _save(state: RunState) -> bytes | None:
    options = state.parts.find(RunOptions)
    if options is None:
        return None
    part = machines_pb2.RunOptionsPart(
        pinned_build_id=options.pinned_build_id, request_ids=options.request_ids
    )
    return part.SerializeToString(deterministic=True)


def _load(state: RunState, data: bytes) -> None:
    part = machines_pb2.RunOptionsPart.FromString(data)
    options = state.parts.make(RunOptions)
    options.pinned_build_id = part.pinned_build_id
    options.request_ids = list(part.request_ids)
    state.held_bytes += _byte_count(options)


def _describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    response.pinned_build_id = pinned_build_id(state)


MACHINE = Machine(
    name="options",
    events={
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED: OnEvent(
            _updated, obligations=_offered_anew, is_for_code=False
        )
    },
    save_part=_save,
    load_part=_load,
    describe=_describe,
)
