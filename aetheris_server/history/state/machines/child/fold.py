"""What the events and facts of children change."""

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2, run_calls_pb2
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.machines.child.values import (
    Children,
    ChildState,
    add_child,
    children_of,
    drop_child,
    note_started,
)
from aetheris_server.history.state.run import RunState


def initiated(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """A child is owed its start, unless there is no such namespace. Never buffered."""
    attributes = event.start_child_workflow_execution_initiated_event_attributes
    if not attributes.namespace_id:
        return
    add_child(state, ChildState(event.event_id, attributes))


def started(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """It runs. One that has closed meanwhile is not there any more."""
    attributes = event.child_workflow_execution_started_event_attributes
    child = children_of(state).get(attributes.initiated_event_id)
    if child is not None:
        run_id = attributes.workflow_execution.run_id
        note_started(state, child, run_id, _without_start(child.initiated))
        child.started_event_id = event.event_id


def _without_start(
    whole: history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes,
) -> history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes:
    """What its end, its policy and people still need. Another one: the event stays as it is."""
    return history_pb2.StartChildWorkflowExecutionInitiatedEventAttributes(
        namespace=whole.namespace,
        namespace_id=whole.namespace_id,
        workflow_id=whole.workflow_id,
        workflow_type=whole.workflow_type,
        parent_close_policy=whole.parent_close_policy,
        workflow_task_completed_event_id=whole.workflow_task_completed_event_id,
    )


def start_failed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """There is no such child."""
    attributes = event.start_child_workflow_execution_failed_event_attributes
    drop_child(state, attributes.initiated_event_id)


def closed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """It has closed."""
    drop_child(state, getattr(event, ATTRIBUTES[event.event_type]).initiated_event_id)


def noted(state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp) -> None:
    """A closed run learned that a child has started, or owes it nothing more."""
    stored = run_calls_pb2.ChildFact.FromString(fact.machine_fact.data)
    child = children_of(state).get(stored.initiated_event_id)
    if child is None:
        return
    if stored.run_id and not child.is_abandoned:
        note_started(state, child, stored.run_id, _without_start(child.initiated))
    else:
        drop_child(state, stored.initiated_event_id)


def close(state: RunState) -> None:
    """The run has closed: keep those that it owes something. Called with each later record too."""
    children = state.parts.find(Children)
    if children is None or children.are_owed:
        return
    children.are_owed = True
    for child in list(children.values()):
        if not _is_owed(state, child):
            drop_child(state, child.initiated_event_id)


def _is_owed(state: RunState, child: ChildState) -> bool:
    if child.is_abandoned:
        return not child.run_id
    return not (not child.run_id and _is_of_last_decision(state, child))


def _is_of_last_decision(state: RunState, child: ChildState) -> bool:
    """Whether the decision that closed the run initiated it, so that nobody has called it."""
    event = state.close_event
    assert event is not None
    # Those that close a run from outside have no such field.
    decision = getattr(
        getattr(event, ATTRIBUTES[event.event_type]), "workflow_task_completed_event_id", 0
    )
    return child.initiated.workflow_task_completed_event_id == decision
