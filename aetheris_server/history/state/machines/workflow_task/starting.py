"""Giving the workflow task to a worker."""

from datetime import datetime

from aetheris.api.v1 import history_pb2
from aetheris_server.history.state.inflight import Inflight, TaskTaker
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.update.values import Updates
from aetheris_server.history.state.machines.workflow_task.values import (
    StartedWorkflowTask,
    WorkflowTaskState,
    is_owed,
)
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_duration, to_timestamp


def is_startable(
    state: RunState, inflight: Inflight, scheduled_event_id: int, attempt: int, now: datetime
) -> bool:
    """Whether this attempt is the one that is due and that nobody has.

    One that is refused because it backs off is offered when its time has come.
    """
    task = state.workflow_task
    return (
        task is not None
        and not state.is_paused
        and task.scheduled_event_id == scheduled_event_id
        and task.attempt == attempt
        and is_owed(task, inflight, now)
    )


def start_workflow_task(
    state: RunState,
    inflight: Inflight,
    taker: TaskTaker,
    start_id: str,
    now: datetime,
    at: float,
    limits: RunLimits,
    query_ids: tuple[str, ...] = (),
    updates: tuple[history_pb2.UpdateRequest, ...] = (),
    speculative: WorkflowTaskState | None = None,
) -> StartedWorkflowTask:
    """Give the pending workflow task, or else the speculative one, to a worker. Writes nothing.

    The caller has checked `is_startable`, and that no events are buffered.
    """
    task = state.workflow_task or speculative
    assert task is not None
    has_own_events = task.is_transient or task is speculative
    inflight.workflow_task = StartedWorkflowTask(
        start_id=start_id,
        scheduled_event_id=task.scheduled_event_id,
        attempt=task.attempt,
        taker=taker,
        scheduled_event=_own_scheduled_event(state, task) if has_own_events else None,
        started_event=_started_event(
            state,
            task,
            task.scheduled_event_id + 1 if has_own_events else state.next_event_id,
            taker,
            start_id,
            now,
            limits,
        ),
        started_time=now,
        deadline_at=at + from_duration(state.started.workflow_task_timeout).total_seconds(),
        query_ids=query_ids,
        updates=updates,
        is_speculative=task is speculative,
    )
    inflight.is_task_backing_off = False
    return inflight.workflow_task


def _started_event(
    state: RunState,
    task: WorkflowTaskState,
    event_id: int,
    taker: TaskTaker,
    start_id: str,
    now: datetime,
    limits: RunLimits,
) -> history_pb2.HistoryEvent:
    """What the worker sees; it is written with the decision."""
    time = to_timestamp(now)
    return history_pb2.HistoryEvent(
        event_id=event_id,
        event_time=time,
        event_type=history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        workflow_task_started_event_attributes=history_pb2.WorkflowTaskStartedEventAttributes(
            scheduled_event_id=task.scheduled_event_id,
            identity=taker.identity,
            request_id=start_id,
            suggest_continue_as_new=(
                state.next_event_id > limits.suggest_continue_events
                or state.history_bytes > limits.suggest_continue_bytes
                or _has_many_updates(state, limits)
            ),
            history_bytes=state.history_bytes,
            started_time=time,
        ),
    )


def _has_many_updates(state: RunState, limits: RunLimits) -> bool:
    updates = state.parts.find(Updates)
    return updates is not None and 10 * updates.count >= 9 * limits.max_updates


def _own_scheduled_event(state: RunState, task: WorkflowTaskState) -> history_pb2.HistoryEvent:
    return history_pb2.HistoryEvent(
        event_id=task.scheduled_event_id,
        event_time=to_timestamp(task.scheduled_time),
        event_type=history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
        workflow_task_scheduled_event_attributes=history_pb2.WorkflowTaskScheduledEventAttributes(
            task_queue=state.started.task_queue,
            start_to_close_timeout=state.started.workflow_task_timeout,
            attempt=task.attempt,
        ),
    )
