"""Activities as they are offered to workers."""

from datetime import datetime

from aetheris.api.v1 import history_pb2, task_queue_pb2
from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import TaskRefs
from aetheris_server.history.state.machines.activity.values import ActivityState, is_free, is_owed
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import to_timestamp


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


def owes(state: RunState) -> bool:
    """Whether there is one that is not paused, nor its run."""
    return not state.is_paused and any(
        activity.pause is None for activity in state.activities.values()
    )


def obligations(
    state: RunState, inflight: Inflight, now: datetime
) -> list[matching_service_pb2.TaskRef]:
    """The attempts that are due and that nobody has."""
    return [
        activity_ref(state, activity)
        for activity in state.activities.values()
        if is_owed(state, activity, inflight, now)
    ]


def take_due(state: RunState, inflight: Inflight, now: datetime) -> TaskRefs:
    """The attempts that have backed off until now; from here on they do not."""
    refs: list[matching_service_pb2.TaskRef] = []
    if state.is_paused:
        return refs
    for scheduled_id in sorted(inflight.backing_off):
        activity = state.activities.get(scheduled_id)
        if activity is None or not is_free(activity, inflight):
            inflight.backing_off.discard(scheduled_id)
        elif activity.pause is None and activity.is_due(now):
            inflight.backing_off.discard(scheduled_id)
            refs.append(activity_ref(state, activity))
    return refs


def of_schedule(
    state: RunState, inflight: Inflight, event: history_pb2.HistoryEvent, now: datetime
) -> TaskRefs:
    """The first attempt, unless the same record has closed the activity."""
    activity = state.activities.get(event.event_id)
    if activity is None or not is_owed(state, activity, inflight, now):
        return ()
    return (activity_ref(state, activity),)


def of_retry(state: RunState, inflight: Inflight, fact: log_pb2.Fact, now: datetime) -> TaskRefs:
    """The attempt after a failed one, if it does not back off."""
    return take(state, inflight, fact.activity_attempt_failed.scheduled_event_id, now)


def take(state: RunState, inflight: Inflight, scheduled_event_id: int, now: datetime) -> TaskRefs:
    """An activity's current attempt, if it is due; from here on it does not back off."""
    activity = state.activities.get(scheduled_event_id)
    if activity is None or not is_owed(state, activity, inflight, now):
        return ()
    inflight.backing_off.discard(scheduled_event_id)
    return (activity_ref(state, activity),)


def of_not_delivered(
    state: RunState, inflight: Inflight, fact: log_pb2.Fact, now: datetime
) -> TaskRefs:
    """The attempt that its worker did not get."""
    activity = state.activities[fact.activity_attempt_not_delivered.scheduled_event_id]
    return (activity_ref(state, activity),) if is_owed(state, activity, inflight, now) else ()


def resume(state: RunState, inflight: Inflight, now: datetime) -> TaskRefs:
    """The attempts that are due in a run that is not paused any more; from here on they do not back
    off.
    """
    refs = obligations(state, inflight, now)
    inflight.backing_off.difference_update(ref.scheduled_event_id for ref in refs)
    return refs
