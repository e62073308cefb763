"""The workflow task as it is offered to workers."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from aetheris.api.v1 import history_pb2, task_queue_pb2
from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris_server.build_ids import build_capability
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import TaskRefs
from aetheris_server.history.state.machines.workflow_task.values import WorkflowTaskState, is_owed
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.run_options import pinned_build_id
from aetheris_server.history.times import to_duration, to_timestamp

STICKY_TIMEOUT = timedelta(seconds=10)


def workflow_ref(state: RunState, inflight: Inflight) -> matching_service_pb2.TaskRef:
    """A reference to the run for its workflow workers, the one with its cache first."""
    ref = matching_service_pb2.TaskRef(
        namespace_id=state.key.namespace_id,
        workflow_id=state.key.workflow_id,
        run_id=state.key.run_id,
        task_queue_type=task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW,
        task_queue=state.task_queue,
    )
    if inflight.sticky is not None:
        ref.sticky_task_queue = inflight.sticky.task_queue
        ref.sticky_timeout.CopyFrom(to_duration(inflight.sticky.timeout))
    if build_id := pinned_build_id(state):
        ref.capabilities.append(build_capability(build_id))
    return ref


def _task_ref(
    state: RunState, inflight: Inflight, task: WorkflowTaskState
) -> matching_service_pb2.TaskRef:
    ref = workflow_ref(state, inflight)
    ref.scheduled_event_id = task.scheduled_event_id
    ref.attempt = task.attempt
    ref.scheduled_time.CopyFrom(to_timestamp(task.scheduled_time))
    if task.is_transient:
        # The worker that failed may be the reason: any may try.
        ref.ClearField("sticky_task_queue")
        ref.ClearField("sticky_timeout")
    return ref


def owes(state: RunState) -> bool:
    """Whether there is one, and the run is not paused."""
    return state.workflow_task is not None and not state.is_paused


def obligations(state: RunState, inflight: Inflight, now: datetime) -> TaskRefs:
    """The task, if it is due and nobody has it."""
    task = state.workflow_task
    if task is None or state.is_paused or not is_owed(task, inflight, now):
        return ()
    return (_task_ref(state, inflight, task),)


def take_due(state: RunState, inflight: Inflight, now: datetime) -> TaskRefs:
    """The task, if it has backed off until now; from here on it does not."""
    return _take(state, inflight, now) if inflight.is_task_backing_off else ()


def of_schedule(
    state: RunState, inflight: Inflight, event: history_pb2.HistoryEvent, now: datetime
) -> TaskRefs:
    """The task that was scheduled, unless it has been closed by the same record."""
    task = state.workflow_task
    if task is None or task.scheduled_event_id != event.event_id:
        return ()
    return _take(state, inflight, now)


def of_retry(state: RunState, inflight: Inflight, _fact: log_pb2.Fact, now: datetime) -> TaskRefs:
    """The attempt after a failed one, if it does not back off."""
    return _take(state, inflight, now)


def resume(state: RunState, inflight: Inflight, now: datetime) -> TaskRefs:
    """The task that is due in a run that is not paused any more; from here on it does not back
    off.
    """
    return _take(state, inflight, now)


def retry_deadlines(state: RunState) -> Iterator[datetime]:
    """When the task is due, where it backs off."""
    if state.workflow_task is not None and state.workflow_task.is_transient:
        yield state.workflow_task.scheduled_time


def _take(state: RunState, inflight: Inflight, now: datetime) -> TaskRefs:
    refs = obligations(state, inflight, now)
    if refs:
        inflight.is_task_backing_off = False
    return refs
