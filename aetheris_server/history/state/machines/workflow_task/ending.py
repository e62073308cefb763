"""How a workflow task ends: with a decision, with a failure, in no time, or with the run."""

from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2, worker_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import TaskNotFoundError
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.state.run import RunState


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


def append_completed(
    draft: Draft,
    started: StartedWorkflowTask,
    request: worker_service_pb2.RespondWorkflowTaskCompletedRequest,
) -> int:
    """Append the events up to *completed*; the id of that."""
    scheduled_id, started_id = append_started(draft, started)
    return draft.add(
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
        history_pb2.WorkflowTaskCompletedEventAttributes(
            scheduled_event_id=scheduled_id,
            started_event_id=started_id,
            identity=request.identity,
            worker_version=request.worker_version,
            sdk_name=request.sdk_name,
            sdk_version=request.sdk_version,
            unhandled_signal_count=request.unhandled_signal_count,
            workflow_version=request.workflow_version,
        ),
    )


def heartbeat_since(
    inflight: Inflight,
    started: StartedWorkflowTask,
    request: worker_service_pb2.RespondWorkflowTaskCompletedRequest,
) -> datetime | None:
    """When the first task of a row began of which this completion is the last sign of life; None
    for one that decides something.
    """
    if not request.force_create_new_workflow_task or request.commands:
        return None
    return inflight.heartbeat_since or started.started_time


def append_failed(
    draft: Draft,
    started: StartedWorkflowTask,
    cause: "history_pb2.WorkflowTaskFailedCause.ValueType",
    failure: failure_pb2.Failure,
    identity: str,
) -> None:
    """The task failed: note it, show what was buffered, try again."""
    failed = history_pb2.WorkflowTaskFailedEventAttributes(
        cause=cause, failure=failure, identity=identity
    )
    _append_end(draft, started, history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED, failed)
    _append_next_attempt(draft, started, cause, failure, identity)


def _append_end(
    draft: Draft,
    started: StartedWorkflowTask,
    event_type: "history_pb2.EventType.ValueType",
    attributes: (
        history_pb2.WorkflowTaskFailedEventAttributes
        | history_pb2.WorkflowTaskTimedOutEventAttributes
    ),
) -> None:
    """The end of a task without a decision; of attempts in a row, only the first one's is shown."""
    draft.end_buffering()
    if started.attempt == 1:
        attributes.scheduled_event_id, attributes.started_event_id = append_started(draft, started)
        draft.add(event_type, attributes)


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


def decide_workflow_task_failed(
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
    timeout_type = failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
    timed_out = history_pb2.WorkflowTaskTimedOutEventAttributes(timeout_type=timeout_type)
    _append_end(draft, started, history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT, timed_out)
    _append_next_attempt(
        draft,
        started,
        history_pb2.WORKFLOW_TASK_FAILED_CAUSE_UNSPECIFIED,
        failure_pb2.Failure(
            message="workflow task timed out",
            timeout_failure_info=failure_pb2.TimeoutFailureInfo(timeout_type=timeout_type),
        ),
        started.taker.identity,
    )


def append_force_closed(draft: Draft, inflight: Inflight) -> None:
    """Void the task in flight and show what was buffered: the run is closed from outside."""
    started = inflight.workflow_task
    draft.end_buffering()
    if started is not None and not started.is_speculative:
        failed = history_pb2.WorkflowTaskFailedEventAttributes(
            cause=history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND, identity="history"
        )
        _append_end(draft, started, history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED, failed)
    draft.flush()


def decide_flush(state: RunState, inflight: Inflight, now: datetime) -> log_pb2.LogRecord | None:
    """Show the code what was buffered for a workflow task that is void; None if nothing was."""
    if not state.buffered_events or inflight.workflow_task is not None:
        return None
    draft = Draft(state, inflight, now)
    task = state.workflow_task
    # One that is tried again has ids that the events have taken.
    if draft.flush() or (task is not None and task.is_transient):
        draft.ensure_workflow_task()
    return draft.record
