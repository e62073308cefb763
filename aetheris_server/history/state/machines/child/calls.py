"""What a run owes its children: their start, and, when it closes, what their policies say."""

from datetime import datetime

from aetheris.api.v1 import common_pb2, history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, AggregateName
from aetheris_server.history.aggregates.obligation import make_call
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Obligations
from aetheris_server.history.state.machines.child.values import (
    Children,
    ChildState,
    children_of,
    copy_start,
)
from aetheris_server.history.state.run import KIND, RunState


def owes(state: RunState) -> bool:
    """Whether a start has not been answered."""
    children = state.parts.find(Children)
    return children is not None and children.unstarted_count > 0


def obligations(state: RunState, _inflight: Inflight, _now: datetime) -> Obligations:
    """The starts that have not been answered."""
    return [_to_start(state, child) for child in children_of(state).values() if not child.run_id]


def of_initiated(
    state: RunState, _inflight: Inflight, event: history_pb2.HistoryEvent, _now: datetime
) -> Obligations:
    """The start of a child that has just been initiated."""
    child = children_of(state).get(event.event_id)
    return (_to_start(state, child),) if child is not None else ()


def closed_owes(state: RunState) -> bool:
    """Whether a closed run has children still: it keeps those alone that something is owed to."""
    return Children in state.parts


def closed_obligations(state: RunState) -> Obligations:
    """What a closed run owes its children."""
    return [_to_last(state, child) for child in children_of(state).values()]


def of_fact(
    state: RunState, _inflight: Inflight, fact: log_pb2.Fact, _now: datetime
) -> Obligations:
    """What a closed run owes the child that it has just learned to have started."""
    stored = run_calls_pb2.ChildFact.FromString(fact.machine_fact.data)
    child = children_of(state).get(stored.initiated_event_id)
    return (_to_last(state, child),) if child is not None else ()


def _to_last(state: RunState, child: ChildState) -> AggregateCall:
    return _to_close(state, child) if child.run_id else _to_start(state, child)


def _to_start(state: RunState, child: ChildState) -> AggregateCall:
    initiated = child.initiated
    request = workflow_service_pb2.StartWorkflowRequest(
        namespace=initiated.namespace,
        workflow_id=initiated.workflow_id,
        workflow_type=initiated.workflow_type,
        task_queue=initiated.task_queue,
        workflow_id_reuse_policy=initiated.workflow_id_reuse_policy,
        workflow_id_conflict_policy=workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        identity="history",
    )
    copy_start(initiated, request)
    start = run_calls_pb2.StartChildCall(
        request=request,
        initiated_event_id=child.initiated_event_id,
        root_workflow_execution=_root_of(state),
    )
    call = run_calls_pb2.RunCall(start_child=start)
    return _to_call(state, child, child.initiated_event_id, call)


def _root_of(state: RunState) -> common_pb2.WorkflowExecution:
    started = state.started
    if started.HasField("root_workflow_execution"):
        return started.root_workflow_execution
    return common_pb2.WorkflowExecution(workflow_id=state.key.workflow_id, run_id=state.key.run_id)


def _to_close(state: RunState, child: ChildState) -> AggregateCall:
    close = run_calls_pb2.CloseChildCall(
        parent_close_policy=child.initiated.parent_close_policy,
        first_execution_run_id=child.run_id,
        close_time=state.close_event.event_time if state.close_event is not None else None,
    )
    # The start has the number itself.
    number = -child.initiated_event_id
    return _to_call(state, child, number, run_calls_pb2.RunCall(close_child=close))


def _to_call(
    state: RunState, child: ChildState, number: int, call: run_calls_pb2.RunCall
) -> AggregateCall:
    target = AggregateName(
        kind=KIND,
        namespace_id=child.initiated.namespace_id,
        name=child.initiated.workflow_id,
    )
    return make_call(state.key, number, target, call.SerializeToString())
