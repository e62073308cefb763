"""The workflow task's machine.

    none ──schedule──► scheduled ──start──► started ──completed──► none, or scheduled again
                          ▲                    │
                          └──── retry ─────────┴─ failed, timed out

*Started* is in `Inflight` only. From the second attempt on the task is transient: its events are
written when it succeeds, so a task that fails for hours leaves one failure in the history. When
something new happens meanwhile, a first attempt takes its place.
"""

from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2, worker_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import TaskNotFoundError
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight, Poller, StartedWorkflowTask
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.run import RunState, WorkflowTaskState
from aetheris_server.history.state.times import from_duration, to_timestamp


def is_startable(
    state: RunState, inflight: Inflight, scheduled_event_id: int, attempt: int, now: datetime
) -> bool:
    """Whether this attempt is the one that is due and that nobody has.

    One that is refused because it backs off is offered when its time has come.
    """
    task = state.workflow_task
    return (
        task is not None
        and task.scheduled_event_id == scheduled_event_id
        and task.attempt == attempt
        and is_owed(task, inflight, now)
    )


def is_owed(task: WorkflowTaskState, inflight: Inflight, now: datetime) -> bool:
    """Whether the task is due, or has been, and nobody has it."""
    return inflight.workflow_task is None and (not inflight.is_task_backing_off or task.is_due(now))


def start_workflow_task(
    state: RunState,
    inflight: Inflight,
    poller: Poller,
    start_id: str,
    now: datetime,
    at: float,
    limits: RunLimits,
    query_ids: tuple[str, ...] = (),
) -> StartedWorkflowTask:
    """Give the pending workflow task to a poller. Writes nothing.

    The caller has checked `is_startable`, and that no events are buffered.
    """
    task = state.workflow_task
    assert task is not None
    scheduled_event = _transient_scheduled_event(state, task) if task.is_transient else None
    started_event = history_pb2.HistoryEvent(
        event_id=task.scheduled_event_id + 1 if task.is_transient else state.next_event_id,
        event_time=to_timestamp(now),
        event_type=history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED,
        workflow_task_started_event_attributes=history_pb2.WorkflowTaskStartedEventAttributes(
            scheduled_event_id=task.scheduled_event_id,
            identity=poller.identity,
            request_id=start_id,
            suggest_continue_as_new=(
                state.next_event_id > limits.suggest_continue_events
                or state.history_bytes > limits.suggest_continue_bytes
            ),
            history_bytes=state.history_bytes,
            started_time=to_timestamp(now),
        ),
    )
    inflight.workflow_task = StartedWorkflowTask(
        start_id=start_id,
        scheduled_event_id=task.scheduled_event_id,
        attempt=task.attempt,
        poller=poller,
        scheduled_event=scheduled_event,
        started_event=started_event,
        started_time=now,
        deadline_at=at + from_duration(state.started.workflow_task_timeout).total_seconds(),
        query_ids=query_ids,
    )
    inflight.is_task_backing_off = False
    return inflight.workflow_task


def _transient_scheduled_event(
    state: RunState, task: WorkflowTaskState
) -> history_pb2.HistoryEvent:
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


def require_started(state: RunState, inflight: Inflight, start_id: str) -> StartedWorkflowTask:
    """The workflow task that a worker's answer is about.

    Raises:
        TaskNotFoundError: It is not the latest start of the pending task.
    """
    started = inflight.workflow_task
    if not state.is_open:
        raise TaskNotFoundError("the run has closed")
    if started is None or started.start_id != start_id:
        raise TaskNotFoundError("the workflow task was completed, timed out or was given out again")
    return started


def append_started(draft: Draft, started: StartedWorkflowTask) -> tuple[int, int]:
    """Append the events up to *started* that are not written yet.

    Returns:
        The ids of the scheduled and the started event.
    """
    draft.end_buffering()
    scheduled_id = started.scheduled_event_id
    if started.scheduled_event is not None:
        scheduled_id = draft.append(started.scheduled_event)
    return scheduled_id, draft.append(started.started_event)


def append_failed(
    draft: Draft,
    started: StartedWorkflowTask,
    cause: "history_pb2.WorkflowTaskFailedCause.ValueType",
    failure: failure_pb2.Failure,
    identity: str,
) -> None:
    """The task failed: note it, show what was buffered, try again."""
    draft.end_buffering()
    if started.attempt == 1:
        scheduled_id, started_id = append_started(draft, started)
        draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED,
            history_pb2.WorkflowTaskFailedEventAttributes(
                scheduled_event_id=scheduled_id,
                started_event_id=started_id,
                cause=cause,
                failure=failure,
                identity=identity,
            ),
        )
    _append_next_attempt(draft, started, cause, failure, identity)


def _append_next_attempt(
    draft: Draft,
    started: StartedWorkflowTask,
    cause: "history_pb2.WorkflowTaskFailedCause.ValueType",
    failure: failure_pb2.Failure,
    identity: str,
) -> None:
    if draft.flush():
        draft.schedule_workflow_task()
    else:
        draft.retry_workflow_task(started.attempt + 1, cause, failure, identity)


def decide_failed(
    state: RunState,
    inflight: Inflight,
    request: worker_service_pb2.RespondWorkflowTaskFailedRequest,
    start_id: str,
    now: datetime,
) -> log_pb2.LogRecord:
    """A worker could not decide.

    Raises:
        TaskNotFoundError: The answer is stale.
    """
    started = require_started(state, inflight, start_id)
    draft = Draft(state, inflight, now)
    append_failed(draft, started, request.cause, request.failure, request.identity)
    return draft.record


def append_timed_out(draft: Draft, started: StartedWorkflowTask) -> None:
    """The worker did not answer in time: note it, show what was buffered, try again."""
    draft.end_buffering()
    timeout_type = failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
    if started.attempt == 1:
        scheduled_id, started_id = append_started(draft, started)
        draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
            history_pb2.WorkflowTaskTimedOutEventAttributes(
                scheduled_event_id=scheduled_id,
                started_event_id=started_id,
                timeout_type=timeout_type,
            ),
        )
    _append_next_attempt(
        draft,
        started,
        history_pb2.WORKFLOW_TASK_FAILED_CAUSE_UNSPECIFIED,
        failure_pb2.Failure(
            message="workflow task timed out",
            timeout_failure_info=failure_pb2.TimeoutFailureInfo(timeout_type=timeout_type),
        ),
        started.poller.identity,
    )


def append_force_closed(draft: Draft, inflight: Inflight) -> None:
    """Void the task in flight and show what was buffered: the run is closed from outside."""
    started = inflight.workflow_task
    draft.end_buffering()
    if started is not None and started.attempt == 1:
        scheduled_id, started_id = append_started(draft, started)
        draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED,
            history_pb2.WorkflowTaskFailedEventAttributes(
                scheduled_event_id=scheduled_id,
                started_event_id=started_id,
                cause=history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
                identity="history",
            ),
        )
    draft.flush()


def decide_flush(state: RunState, inflight: Inflight, now: datetime) -> log_pb2.LogRecord | None:
    """Show the code what was buffered for a workflow task that is void; None if nothing was."""
    if not state.buffered_events or inflight.workflow_task is not None:
        return None
    draft = Draft(state, inflight, now)
    if draft.flush():
        draft.ensure_workflow_task()
    return draft.record
