"""Pauses: a run of which nothing is given out.

    running ──pause──► paused ──unpause──► running
                         └──the run closes──► none

Paused, a run owes no task: what is scheduled waits, and what backs off waits at least as long. Its
timers fire, its deadline goes on, signals, requests to cancel and results are recorded; what
workers have they may end, and that is recorded too. Unpaused, it owes what is due by then.

The events are for people, and may wait in the buffer while a worker decides. A fact beside each
says the same at once, and only once.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, pause_pb2
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.history.aggregates.records import find_unknown
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent, OnFact, unknown_record
from aetheris_server.history.state.machines.activity import tasks as activity_tasks
from aetheris_server.history.state.machines.activity import timeouts as activity_timeouts
from aetheris_server.history.state.machines.lifecycle.close import require_open
from aetheris_server.history.state.machines.workflow_task import tasks as workflow_tasks
from aetheris_server.history.state.pause import Pause
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp, to_timestamp

_NAME = "pause"
_MAX_REQUEST_IDS = 100
_REQUEST_BYTES = 128
"""What the memory of a request takes beside its id."""


@dataclass(slots=True)
class RunPauses:
    """What is kept of a run that was ever paused.

    Attributes:
        pause: None while it is not.
        request_ids: The last requests that have been recorded, oldest first.
    """

    pause: Pause | None = None
    request_ids: deque[str] = field(default_factory=deque[str])


Request = workflow_service_pb2.PauseWorkflowRequest | workflow_service_pb2.UnpauseWorkflowRequest


def decide_paused(
    state: RunState,
    inflight: Inflight,
    request: workflow_service_pb2.PauseWorkflowRequest,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Hold a run; None if it is held, or if this request has been recorded.

    Raises:
        WorkflowClosedError: The run has closed.
    """
    if _is_recorded(state, request.request_id):
        return None
    require_open(state)
    if state.is_paused:
        return None
    draft = Draft(state, inflight, now)
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_PAUSED,
        history_pb2.WorkflowExecutionPausedEventAttributes(
            identity=request.identity, reason=request.reason, request_id=request.request_id
        ),
    )
    return _to_record(draft, state, request, is_paused=True)


def decide_unpaused(
    state: RunState,
    inflight: Inflight,
    request: workflow_service_pb2.UnpauseWorkflowRequest,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Have a run go on; None if it is not held, or if this request has been recorded.

    Raises:
        WorkflowClosedError: The run has closed.
    """
    if _is_recorded(state, request.request_id):
        return None
    require_open(state)
    if not state.is_paused:
        return None
    draft = Draft(state, inflight, now)
    draft.add_or_buffer(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UNPAUSED,
        history_pb2.WorkflowExecutionUnpausedEventAttributes(
            identity=request.identity, reason=request.reason, request_id=request.request_id
        ),
    )
    return _to_record(draft, state, request, is_paused=False)


def _is_recorded(state: RunState, request_id: str) -> bool:
    pauses = state.parts.find(RunPauses)
    return pauses is not None and request_id in pauses.request_ids


def _to_record(
    draft: Draft, state: RunState, request: Request, *, is_paused: bool
) -> log_pb2.LogRecord:
    fact = pause_pb2.RunPauseFact(
        is_paused=is_paused,
        identity=request.identity,
        reason=request.reason,
        request_id=request.request_id,
    )
    draft.add_machine_fact(_NAME, fact.SerializeToString())
    task = state.workflow_task
    if task is not None and task.is_transient:
        # Its events have ids that the new event has taken.
        draft.ensure_workflow_task()
    return draft.record


# The fold.


def _changed(state: RunState, fact: log_pb2.Fact, time: timestamp_pb2.Timestamp) -> None:
    """The run is held, or goes on.

    Raises:
        UnknownRecordError: A newer program has written more.
    """
    noted = pause_pb2.RunPauseFact.FromString(fact.machine_fact.data)
    if (unknown := find_unknown(noted)) is not None:
        raise unknown_record(state, unknown)
    pauses = state.parts.make(RunPauses)
    _remember(state, pauses, noted.request_id)
    _forget_pause(state, pauses)
    if noted.is_paused:
        _hold(state, pauses, Pause(from_timestamp(time), noted.identity, noted.reason))
        state.status = workflow_pb2.WORKFLOW_EXECUTION_STATUS_PAUSED
        return
    state.status = workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
    activity_timeouts.note_resumed(state, from_timestamp(time))


def _remember(state: RunState, pauses: RunPauses, request_id: str) -> None:
    pauses.request_ids.append(request_id)
    state.held_bytes += _REQUEST_BYTES + len(request_id)
    if len(pauses.request_ids) > _MAX_REQUEST_IDS:
        state.held_bytes -= _REQUEST_BYTES + len(pauses.request_ids.popleft())


def _hold(state: RunState, pauses: RunPauses, pause: Pause) -> None:
    pauses.pause = pause
    state.held_bytes += pause.byte_count


def _forget_pause(state: RunState, pauses: RunPauses) -> None:
    if pauses.pause is not None:
        state.held_bytes -= pauses.pause.byte_count
        pauses.pause = None


def _close(state: RunState) -> None:
    pauses = state.parts.find(RunPauses)
    if pauses is not None:
        _forget_pause(state, pauses)


# What waits while it is paused, and is due when it goes on.


def _resume(
    state: RunState, inflight: Inflight, _fact: log_pb2.Fact, now: datetime
) -> Iterator[TaskRef]:
    task = state.workflow_task
    # One that this record itself has scheduled, its last event, is offered for that.
    if task is not None and task.scheduled_event_id != state.next_event_id - 1:
        yield from workflow_tasks.resume(state, inflight, now)
    yield from activity_tasks.resume(state, inflight, now)


def _resumed_deadlines(state: RunState, _fact: log_pb2.Fact) -> Iterator[datetime]:
    if not state.is_paused:
        yield from workflow_tasks.retry_deadlines(state)
        yield from activity_timeouts.retry_deadlines(state)


# Snapshots, and what users see.


def _save_part(state: RunState) -> bytes | None:
    pauses = state.parts.find(RunPauses)
    if pauses is None:
        return None
    part = pause_pb2.RunPausePart(request_ids=pauses.request_ids)
    if pauses.pause is not None:
        part.pause.CopyFrom(pauses.pause.to_info())
    return part.SerializeToString()


def _load_part(state: RunState, data: bytes) -> None:
    part = pause_pb2.RunPausePart.FromString(data)
    pauses = state.parts.make(RunPauses)
    for request_id in part.request_ids:
        _remember(state, pauses, request_id)
    if part.HasField("pause"):
        _hold(state, pauses, Pause.from_info(part.pause))


def _describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    pauses = state.parts.find(RunPauses)
    if pauses is not None and pauses.pause is not None:
        response.pause_info.CopyFrom(pauses.pause.to_info())


def _waits(
    state: RunState, _inflight: Inflight, _now: datetime
) -> Iterator[workflow_pb2.WaitReason]:
    pauses = state.parts.find(RunPauses)
    if pauses is not None and pauses.pause is not None:
        yield workflow_pb2.WaitReason(
            kind=workflow_pb2.WAIT_KIND_PAUSED,
            since_time=to_timestamp(pauses.pause.time),
            identity=pauses.pause.identity,
            message=pauses.pause.reason,
        )


MACHINE = Machine(
    name=_NAME,
    events={
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_PAUSED: OnEvent(is_for_code=False),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UNPAUSED: OnEvent(is_for_code=False),
    },
    own_fact=OnFact(_changed, deadlines=_resumed_deadlines, obligations=_resume),
    close=_close,
    save_part=_save_part,
    load_part=_load_part,
    describe=_describe,
    waits=_waits,
)
