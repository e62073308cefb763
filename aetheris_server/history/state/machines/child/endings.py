"""What a parent is told of its children: that they started or could not, and how they closed."""

from datetime import datetime

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2, run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateName
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.draft import Draft, FlushedIds
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.child.commands import to_start_failed
from aetheris_server.history.state.machines.child.values import NAME, ChildState, children_of
from aetheris_server.history.state.run import RunState

CLOSE_EVENTS = {
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: (
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: (
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED: (
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELLED
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT: (
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TIMED_OUT
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED: (
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED
    ),
}
"""The parent's event by the one that closed the child."""

_CARRIED = ("result", "failure", "details", "retry_state")

_CAUSES = {
    run_calls_pb2.RUN_CALL_RESULT_ALREADY_EXISTS: (
        history_pb2.START_CHILD_WORKFLOW_FAILED_CAUSE_WORKFLOW_ALREADY_EXISTS
    ),
}


# The answers to what the parent calls.


def start_answered(
    draft: Draft, state: RunState, number: int, answer: run_calls_pb2.RunCallAnswer
) -> None:
    """The child has started, or never will."""
    child = children_of(state).get(number)
    if child is None or child.run_id:
        return
    has_started = answer.result == run_calls_pb2.RUN_CALL_RESULT_DONE
    if not state.is_open:
        _note(draft, number, answer.run_id if has_started else "")
        return
    if has_started:
        _add_started(draft, child, answer.run_id)
    else:
        cause = _CAUSES.get(answer.result, history_pb2.START_CHILD_WORKFLOW_FAILED_CAUSE_REFUSED)
        draft.add_or_buffer(
            history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED,
            to_start_failed(number, child.initiated, cause),
        )
    draft.ensure_workflow_task()


def close_answered(
    draft: Draft, state: RunState, number: int, _answer: run_calls_pb2.RunCallAnswer
) -> None:
    """The closed parent's policy has been carried out, or there is nobody left for it."""
    if -number in children_of(state):
        _note(draft, -number, "")


def _note(draft: Draft, initiated_event_id: int, run_id: str) -> None:
    fact = run_calls_pb2.ChildFact(initiated_event_id=initiated_event_id, run_id=run_id)
    draft.add_machine_fact(NAME, fact.SerializeToString())


def _add_started(draft: Draft, child: ChildState, run_id: str) -> int:
    """The event's id; 0 where it is buffered."""
    initiated = child.initiated
    attributes = history_pb2.ChildWorkflowExecutionStartedEventAttributes(
        namespace=initiated.namespace,
        initiated_event_id=child.initiated_event_id,
        workflow_type=initiated.workflow_type,
        header=initiated.header if initiated.HasField("header") else None,
    )
    attributes.workflow_execution.workflow_id = initiated.workflow_id
    attributes.workflow_execution.run_id = run_id
    return draft.add_or_buffer(history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED, attributes)


# What the child calls.


def decide_child_closed(
    state: RunState,
    inflight: Inflight,
    child_name: AggregateName,
    closed: run_calls_pb2.ChildClosedCall,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Record how a child closed; None if the run has closed, or knows that already.

    Args:
        state: The parent's.
        inflight: What workers have of it.
        child_name: The run that closed, which may be a later one of the child's chain.
        closed: How.
        now: The parent's time.
    """
    child = children_of(state).get(closed.initiated_event_id) if state.is_open else None
    if child is None or child.run_id not in ("", closed.first_execution_run_id):
        return None
    draft = Draft(state, inflight, now)
    if not draft.is_buffering:
        draft.flush()
    started_id = child.started_event_id
    if not child.run_id:
        started_id = _add_started(draft, child, closed.first_execution_run_id)
    elif not started_id:
        started_id = _find_flushed(draft, child)
    event_type = CLOSE_EVENTS[closed.close_event.event_type]
    event = history_pb2.HistoryEvent()
    attributes = getattr(event, ATTRIBUTES[event_type])
    _carry(closed.close_event, attributes)
    attributes.namespace = child.initiated.namespace
    attributes.workflow_execution.workflow_id = child_name.name
    attributes.workflow_execution.run_id = child_name.id
    attributes.workflow_type.CopyFrom(closed.workflow_type)
    attributes.initiated_event_id = child.initiated_event_id
    attributes.started_event_id = started_id
    draft.add_or_buffer(event_type, attributes)
    draft.ensure_workflow_task()
    return draft.record


def _carry(close_event: history_pb2.HistoryEvent, attributes: object) -> None:
    """Copy what the child's last event and the parent's have both."""
    given = getattr(close_event, ATTRIBUTES[close_event.event_type])
    for name in _CARRIED:
        if name not in given.DESCRIPTOR.fields_by_name:
            continue
        if name == "retry_state":
            attributes.retry_state = given.retry_state  # type: ignore[attr-defined]
        elif given.HasField(name):
            getattr(attributes, name).CopyFrom(getattr(given, name))


def _find_flushed(draft: Draft, child: ChildState) -> int:
    """The started event that was buffered, and has just got its number; 0 where it waits still."""
    for event in draft.record.events:
        if event.event_type == history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED:
            started = event.child_workflow_execution_started_event_attributes
            if started.initiated_event_id == child.initiated_event_id:
                return event.event_id
    return 0


# On a flush.


def finish_started(event: history_pb2.HistoryEvent, flushed_ids: FlushedIds) -> None:
    """Tell the end, if it waits too, which event this is."""
    started = event.child_workflow_execution_started_event_attributes
    flushed_ids[started.initiated_event_id] = event.event_id


def finish(event: history_pb2.HistoryEvent, flushed_ids: FlushedIds) -> None:
    """Name the started event that waited with it."""
    attributes = getattr(event, ATTRIBUTES[event.event_type])
    started_id = flushed_ids.get(attributes.initiated_event_id)
    if started_id is not None:
        attributes.started_event_id = started_id
