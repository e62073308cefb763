"""What a run's state calls for outside the run: tasks to offer to workers.

`obligations` derives all of it from the state, so that nothing about dispatch has to be written:
after a crash it is derived again. `new_obligations` is the part of it that one record has brought.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from aetheris.api.v1 import history_pb2, task_queue_pb2
from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris_server.history.state.activity import is_free, is_owed
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.run import ActivityState, RunState
from aetheris_server.history.state.times import to_duration, to_timestamp
from aetheris_server.history.state.workflow_task import is_owed as is_task_owed

STICKY_TIMEOUT = timedelta(seconds=10)


def owes_tasks(state: RunState) -> bool:
    """Whether a crash now would leave tasks to offer again."""
    return state.is_open and (state.workflow_task is not None or bool(state.activities))


def obligations(
    state: RunState, inflight: Inflight, now: datetime
) -> list[matching_service_pb2.TaskRef]:
    """Every task that is due and that nobody has."""
    if not state.is_open:
        return []
    refs = list(_workflow_task_refs(state, inflight, now))
    refs.extend(
        activity_ref(state, activity)
        for activity in state.activities.values()
        if is_owed(activity, inflight, now)
    )
    return refs


def new_obligations(
    state: RunState, inflight: Inflight, record: log_pb2.LogRecord, now: datetime
) -> list[matching_service_pb2.TaskRef]:
    """The tasks that a record, already applied, has brought and that are due at once.

    The caller offers them: they do not back off from here on.
    """
    if not state.is_open:
        return []
    refs: list[matching_service_pb2.TaskRef] = []
    task_is_new = False
    for event in record.events:
        if event.event_type == history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
            task_is_new = True
        elif event.event_type == history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            activity = state.activities.get(event.event_id)
            if activity is not None and is_owed(activity, inflight, now):
                refs.append(activity_ref(state, activity))
    for fact in record.facts:
        if fact.HasField("workflow_task_retry_scheduled"):
            task_is_new = True
        elif fact.HasField("activity_attempt_failed"):
            activity = state.activities.get(fact.activity_attempt_failed.scheduled_event_id)
            if activity is not None and is_owed(activity, inflight, now):
                refs.append(activity_ref(state, activity))
                inflight.backing_off.discard(activity.scheduled_event_id)
        elif fact.HasField("activity_attempt_not_delivered"):
            scheduled_id = fact.activity_attempt_not_delivered.scheduled_event_id
            refs.append(activity_ref(state, state.activities[scheduled_id]))
    if task_is_new and (task_refs := list(_workflow_task_refs(state, inflight, now))):
        refs.extend(task_refs)
        inflight.is_task_backing_off = False
    return refs


def take_due_retries(
    state: RunState, inflight: Inflight, now: datetime
) -> list[matching_service_pb2.TaskRef]:
    """The tasks that backed off until now. The caller offers them: from here on they do not."""
    refs: list[matching_service_pb2.TaskRef] = []
    for scheduled_id in sorted(inflight.backing_off):
        activity = state.activities.get(scheduled_id)
        if activity is None or not is_free(activity, inflight):
            inflight.backing_off.discard(scheduled_id)
        elif activity.is_due(now):
            inflight.backing_off.discard(scheduled_id)
            refs.append(activity_ref(state, activity))
    if inflight.is_task_backing_off and (
        task_refs := list(_workflow_task_refs(state, inflight, now))
    ):
        inflight.is_task_backing_off = False
        refs.extend(task_refs)
    return refs


def _workflow_task_refs(
    state: RunState, inflight: Inflight, now: datetime
) -> Iterator[matching_service_pb2.TaskRef]:
    task = state.workflow_task
    if task is None or not is_task_owed(task, inflight, now):
        return
    ref = workflow_ref(state, inflight)
    ref.scheduled_event_id = task.scheduled_event_id
    ref.attempt = task.attempt
    ref.scheduled_time.CopyFrom(to_timestamp(task.scheduled_time))
    if task.is_transient:
        # The worker that failed may be the reason: any may try.
        ref.ClearField("sticky_task_queue")
        ref.ClearField("sticky_timeout")
    yield ref


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
    return ref


def activity_ref(state: RunState, activity: ActivityState) -> matching_service_pb2.TaskRef:
    """A reference to an activity's current attempt."""
    return matching_service_pb2.TaskRef(
        namespace_id=state.key.namespace_id,
        workflow_id=state.key.workflow_id,
        run_id=state.key.run_id,
        task_queue_type=task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY,
        task_queue=activity.scheduled.task_queue.name,
        scheduled_event_id=activity.scheduled_event_id,
        attempt=activity.attempt,
        capabilities=activity.scheduled.capabilities,
        scheduled_time=to_timestamp(activity.attempt_scheduled_time),
    )
