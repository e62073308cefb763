"""What the workflow task's events and facts change, and its part of snapshots and of describe."""

from collections.abc import Iterator
from datetime import datetime

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, state_pb2
from aetheris_server.history.aggregates.records import find_unknown
from aetheris_server.history.state.failures import trim
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.workflow_task.values import WorkflowTaskState
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp, to_timestamp

# To the state.


def scheduled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """A first attempt, or a transient one whose events are written, is pending."""
    state.workflow_task = WorkflowTaskState(
        scheduled_event_id=event.event_id,
        attempt=event.workflow_task_scheduled_event_attributes.attempt,
        scheduled_time=from_timestamp(event.event_time),
    )
    state.first_task_time = None


def completed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """The code has seen all up to the task's start."""
    attributes = event.workflow_task_completed_event_attributes
    state.previous_started_event_id = attributes.started_event_id
    state.unhandled_signal_count = attributes.unhandled_signal_count
    state.last_completed_event_id = event.event_id
    state.workflow_task = None


def closed(state: RunState, _event: history_pb2.HistoryEvent) -> None:
    """What follows in the same record says whether, and as which attempt, it is tried again."""
    state.workflow_task = None


def retried(state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp) -> None:
    """A transient attempt is pending."""
    retry = fact.workflow_task_retry_scheduled
    state.workflow_task = WorkflowTaskState(
        scheduled_event_id=state.next_event_id,
        attempt=retry.attempt,
        scheduled_time=from_timestamp(retry.due_time),
        last_failure=trim(retry.last_failure),
    )


def drop(state: RunState) -> None:
    """The run has closed."""
    state.workflow_task = None


# To what workers have.


def observe_scheduled(inflight: Inflight, event: history_pb2.HistoryEvent) -> None:
    """It takes the place of the one that a worker may have had, unless it is that very one, whose
    events are written now that it ends.
    """
    started = inflight.workflow_task
    if started is not None and started.scheduled_event_id != event.event_id:
        _lose(inflight)
    inflight.is_task_backing_off = False


def observe_completed(inflight: Inflight, _event: history_pb2.HistoryEvent) -> None:
    """Nobody has it any more; who had it has the run cached."""
    inflight.workflow_task = None
    inflight.is_task_backing_off = False
    inflight.heartbeat_since = None


def observe_closed(inflight: Inflight, _event: history_pb2.HistoryEvent) -> None:
    """The task, if a worker had it, is void."""
    _lose(inflight)
    inflight.is_task_backing_off = False


def observe_retried(inflight: Inflight, _fact: log_pb2.Fact) -> None:
    """The next attempt is not offered before it is due."""
    _lose(inflight)
    inflight.is_task_backing_off = True


def _lose(inflight: Inflight) -> None:
    # The worker did not complete the task, so its cache is not what the next task continues.
    inflight.heartbeat_since = None
    if inflight.workflow_task is not None:
        inflight.workflow_task = None
        inflight.sticky = None


# In snapshots, and for users.


def save(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    """The pending task, and what the last completed one left."""
    snapshot.previous_started_event_id = state.previous_started_event_id
    snapshot.last_completed_event_id = state.last_completed_event_id
    snapshot.unhandled_signal_count = state.unhandled_signal_count
    task = state.workflow_task
    if task is not None:
        snapshot.workflow_task.CopyFrom(
            state_pb2.WorkflowTaskState(
                scheduled_event_id=task.scheduled_event_id,
                attempt=task.attempt,
                scheduled_time=to_timestamp(task.scheduled_time),
                last_failure=task.last_failure,
            )
        )


def load(state: RunState, snapshot: state_pb2.RunSnapshot) -> None:
    """The same, back."""
    state.previous_started_event_id = snapshot.previous_started_event_id
    state.last_completed_event_id = snapshot.last_completed_event_id
    state.unhandled_signal_count = snapshot.unhandled_signal_count
    if snapshot.HasField("workflow_task"):
        stored = snapshot.workflow_task
        state.workflow_task = WorkflowTaskState(
            scheduled_event_id=stored.scheduled_event_id,
            attempt=stored.attempt,
            scheduled_time=from_timestamp(stored.scheduled_time),
            last_failure=stored.last_failure if stored.HasField("last_failure") else None,
        )


def find_unknown_task(snapshot: state_pb2.RunSnapshot) -> str | None:
    """The first field of a stored task that only a newer program knows."""
    return find_unknown(snapshot.workflow_task)


def describe(
    state: RunState, inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    """The pending task, and who has it."""
    response.unhandled_signal_count = state.unhandled_signal_count
    task, started = state.workflow_task, inflight.workflow_task
    if task is None:
        return
    if started is None:
        where = workflow_pb2.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    else:
        where = workflow_pb2.PENDING_WORKFLOW_TASK_STATE_STARTED
    response.pending_workflow_task.CopyFrom(
        workflow_pb2.PendingWorkflowTaskInfo(
            state=where,
            scheduled_time=to_timestamp(task.scheduled_time),
            started_time=to_timestamp(started.started_time) if started is not None else None,
            attempt=task.attempt,
            last_failure=task.last_failure,
        )
    )


def waits(state: RunState, inflight: Inflight, now: datetime) -> Iterator[workflow_pb2.WaitReason]:
    """For whoever has the task, for somebody to take it, or for its next attempt."""
    task, started = state.workflow_task, inflight.workflow_task
    if task is None:
        return
    reason = workflow_pb2.WaitReason(
        since_time=to_timestamp(task.scheduled_time),
        attempt=task.attempt,
        message=task.last_failure.message if task.last_failure is not None else "",
    )
    if started is not None:
        reason.kind = workflow_pb2.WAIT_KIND_WORKFLOW_TASK_RUNNING
        reason.since_time.CopyFrom(to_timestamp(started.started_time))
        reason.identity = started.taker.identity
    elif inflight.is_task_backing_off and not task.is_due(now):
        reason.kind = workflow_pb2.WAIT_KIND_WORKFLOW_TASK_BACKING_OFF
        reason.ClearField("since_time")
        reason.until_time.CopyFrom(to_timestamp(task.scheduled_time))
    else:
        reason.kind = workflow_pb2.WAIT_KIND_WORKFLOW_TASK_NOT_TAKEN
        reason.task_queue = state.task_queue
    yield reason
