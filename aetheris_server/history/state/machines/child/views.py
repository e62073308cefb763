"""Children in snapshots, and as users see them."""

from collections.abc import Iterator
from datetime import datetime

from aetheris.api.v1 import workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import run_calls_pb2
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.child.values import (
    Children,
    ChildState,
    add_child,
    children_of,
)
from aetheris_server.history.state.run import RunState


def save(state: RunState) -> bytes | None:
    """All of them."""
    children = state.parts.find(Children)
    if children is None:
        return None
    stored = run_calls_pb2.ChildrenPart(
        children=[
            run_calls_pb2.ChildState(
                initiated_event_id=child.initiated_event_id,
                initiated=child.initiated,
                started_event_id=child.started_event_id,
                run_id=child.run_id,
            )
            for child in children.values()
        ]
    )
    return stored.SerializeToString(deterministic=True)


def load(state: RunState, data: bytes) -> None:
    """The same, back."""
    for stored in run_calls_pb2.ChildrenPart.FromString(data).children:
        child = ChildState(
            stored.initiated_event_id, stored.initiated, stored.run_id, stored.started_event_id
        )
        add_child(state, child)


def describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    """Those of an open run; what a closed one owes is nothing that it waits for."""
    if state.is_open:
        response.pending_children.extend(_to_info(child) for child in children_of(state).values())


def _to_info(child: ChildState) -> workflow_pb2.PendingChildInfo:
    initiated = child.initiated
    info = workflow_pb2.PendingChildInfo(
        namespace=initiated.namespace,
        workflow_type=initiated.workflow_type,
        state=(
            workflow_pb2.PENDING_CHILD_STATE_STARTED
            if child.run_id
            else workflow_pb2.PENDING_CHILD_STATE_INITIATED
        ),
        parent_close_policy=initiated.parent_close_policy,
        initiated_event_id=child.initiated_event_id,
    )
    info.workflow_execution.workflow_id = initiated.workflow_id
    info.workflow_execution.run_id = child.run_id
    return info


def waits(
    state: RunState, _inflight: Inflight, _now: datetime
) -> Iterator[workflow_pb2.WaitReason]:
    """For the start or the end of each."""
    for child in children_of(state).values():
        yield workflow_pb2.WaitReason(
            kind=(
                workflow_pb2.WAIT_KIND_CHILD if child.run_id else workflow_pb2.WAIT_KIND_CHILD_START
            ),
            subject=child.initiated.workflow_id,
        )
