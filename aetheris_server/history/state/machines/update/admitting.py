"""Whether a run takes an update, and what a speculative workflow task is."""

from collections.abc import Collection
from datetime import datetime

from aetheris.api.v1 import failure_pb2
from aetheris_server.errors import UpdateLimitError, WorkflowNotReadyError
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.lifecycle.close import require_open
from aetheris_server.history.state.machines.update.values import Updates
from aetheris_server.history.state.machines.workflow_task.values import WorkflowTaskState
from aetheris_server.history.state.run import RunState

# A workflow task that has failed so often in a row will not answer soon.
_MAX_FAILED_ATTEMPTS = 3


def check_admittable(state: RunState, admitted: Collection[object], limits: RunLimits) -> None:
    """Refuse an update that the run cannot take now.

    Args:
        state: The run's.
        admitted: Those that wait to be judged.
        limits: What the run is held to.

    Raises:
        WorkflowClosedError: The run has closed.
        WorkflowNotReadyError: Its code does not run now.
        UpdateLimitError: It has as many as it may.
    """
    require_open(state)
    if state.is_paused:
        raise WorkflowNotReadyError(state.key.workflow_id, state.key.run_id, "it is paused")
    task = state.workflow_task
    if task is not None and task.attempt > _MAX_FAILED_ATTEMPTS:
        reason = task.last_failure.message if task.last_failure is not None else "unknown"
        raise WorkflowNotReadyError(
            state.key.workflow_id,
            state.key.run_id,
            f"its workflow task has failed {task.attempt - 1} times in a row: {reason}",
        )
    updates = state.parts.find(Updates)
    open_count = len(admitted) + (len(updates.open) if updates is not None else 0)
    if open_count >= limits.max_open_updates:
        raise _too_many(state, f"{limits.max_open_updates} updates without an outcome")
    count = len(admitted) + (updates.count if updates is not None else 0)
    if count >= limits.max_updates:
        raise _too_many(state, f"{limits.max_updates} updates in all; continue as new")


def _too_many(state: RunState, what: str) -> UpdateLimitError:
    return UpdateLimitError(
        state.key.workflow_id, state.key.run_id, f"the run may have {what}, and has as many"
    )


def needs_speculative_task(state: RunState, inflight: Inflight) -> bool:
    """Whether updates that wait have no other workflow task to go with: none is pending, nor will
    one be when its time comes.
    """
    return (
        state.is_open
        and not state.is_paused
        and state.workflow_task is None
        and inflight.workflow_task is None
        and state.first_task_time is None
    )


def speculative_task(state: RunState, now: datetime) -> WorkflowTaskState:
    """The task; its ids are those of the next events, should it ever be written."""
    return WorkflowTaskState(state.next_event_id, 1, now)


def ignored_update() -> failure_pb2.Failure:
    """Why an update is rejected that the worker neither accepted nor rejected."""
    failure = failure_pb2.Failure(
        message="the worker has not judged the update: it may be of a version that has none",
        source="server",
    )
    failure.application_failure_info.type = "UnhandledUpdate"
    failure.application_failure_info.non_retryable = True
    return failure


def abandoned_update() -> failure_pb2.Failure:
    """What an update comes to whose run closes before it has an outcome."""
    failure = failure_pb2.Failure(
        message="the workflow closed before the update, which it had accepted, had an outcome",
        source="server",
    )
    failure.application_failure_info.type = "AcceptedUpdateCompletedWorkflow"
    failure.application_failure_info.non_retryable = True
    return failure
