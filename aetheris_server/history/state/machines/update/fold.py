"""What the events of updates change, and their part of snapshots and of describe."""

from aetheris.api.v1 import history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import update_pb2
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.update.values import (
    UPDATE_BYTES,
    CompletedUpdate,
    OpenUpdate,
    Updates,
    open_updates,
)
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp, to_timestamp


def accepted(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """Its handler is at work."""
    attributes = event.workflow_execution_update_accepted_event_attributes
    _open(
        state,
        OpenUpdate(
            attributes.update_id,
            attributes.accepted_request.name,
            event.event_id,
            from_timestamp(event.event_time),
        ),
    )


def completed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """It has an outcome, which is read from the history when it is asked for."""
    update_id = event.workflow_execution_update_completed_event_attributes.update_id
    taken = state.parts.make(Updates).open.pop(update_id)
    state.held_bytes -= len(taken.name)
    _complete(state, CompletedUpdate(update_id, event.event_id))


def _open(state: RunState, update: OpenUpdate) -> None:
    state.parts.make(Updates).open[update.update_id] = update
    state.held_bytes += UPDATE_BYTES + len(update.update_id) + len(update.name)


def _complete(state: RunState, update: CompletedUpdate) -> None:
    state.parts.make(Updates).completed[update.update_id] = update


def save(state: RunState) -> bytes | None:
    """All of them."""
    updates = state.parts.find(Updates)
    if updates is None:
        return None
    stored = update_pb2.UpdatesState()
    for update in updates.open.values():
        stored.open.add(
            update_id=update.update_id,
            name=update.name,
            accepted_event_id=update.accepted_event_id,
            accepted_time=to_timestamp(update.accepted_time),
        )
    for completed_update in updates.completed.values():
        stored.completed.add(
            update_id=completed_update.update_id,
            completed_event_id=completed_update.completed_event_id,
        )
    return stored.SerializeToString(deterministic=True)


def load(state: RunState, data: bytes) -> None:
    """The same, back."""
    stored = update_pb2.UpdatesState.FromString(data)
    for update in stored.open:
        accepted_time = from_timestamp(update.accepted_time)
        _open(
            state,
            OpenUpdate(update.update_id, update.name, update.accepted_event_id, accepted_time),
        )
    for completed_update in stored.completed:
        state.held_bytes += UPDATE_BYTES + len(completed_update.update_id)
        _complete(
            state,
            CompletedUpdate(completed_update.update_id, completed_update.completed_event_id),
        )


def describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    """Those that were accepted and have no outcome."""
    if not state.is_open:
        return
    for update in open_updates(state):
        response.pending_updates.add(
            update_id=update.update_id,
            name=update.name,
            stage=workflow_pb2.UPDATE_STAGE_ACCEPTED,
            accepted_event_id=update.accepted_event_id,
            stage_time=to_timestamp(update.accepted_time),
        )
