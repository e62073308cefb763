"""What is done to an open activity from outside: pause, unpause, reset, other options.

    open ──pause──► paused ──unpause, reset──► open
     ▲ │                │
     └─┴──reset         └──reset that keeps it paused, other options──► paused

A paused activity has no attempt given out. One that a worker has goes on, and is told: what it
comes to counts, and no other begins. Where the attempt that waits is to be another one (a reset, a
task queue, a time to come) it gets the next number, so that what is offered of it already is gone.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, pause_pb2
from aetheris_server.errors import ActivityNotFoundError
from aetheris_server.history.aggregates.records import find_unknown
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import TaskRefs, unknown_record
from aetheris_server.history.state.machines.activity import tasks, timeouts
from aetheris_server.history.state.machines.activity.fold import hold
from aetheris_server.history.state.machines.activity.options import apply_options, change_options
from aetheris_server.history.state.machines.activity.values import ActivityState, is_free
from aetheris_server.history.state.machines.lifecycle.close import require_open
from aetheris_server.history.state.pause import Pause
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import ZERO, from_timestamp, to_timestamp

NAME = "activity"
_MAX_KEPT_CHANGES = 20

_PAUSED = workflow_pb2.ACTIVITY_CHANGE_TYPE_PAUSED
_UNPAUSED = workflow_pb2.ACTIVITY_CHANGE_TYPE_UNPAUSED
_RESET = workflow_pb2.ACTIVITY_CHANGE_TYPE_RESET
_OPTIONS_UPDATED = workflow_pb2.ACTIVITY_CHANGE_TYPE_OPTIONS_UPDATED

Request = (
    workflow_service_pb2.PauseActivityRequest
    | workflow_service_pb2.UnpauseActivityRequest
    | workflow_service_pb2.ResetActivityRequest
    | workflow_service_pb2.UpdateActivityOptionsRequest
)


def require_activity(state: RunState, activity_id: str) -> ActivityState:
    """The open activity of an id.

    Raises:
        WorkflowClosedError: The run has closed.
        ActivityNotFoundError: It has none.
    """
    require_open(state)
    event_id = state.activity_ids.get(activity_id)
    if event_id is None:
        raise ActivityNotFoundError(state.key.workflow_id, state.key.run_id, activity_id)
    return state.activities[event_id]


# Decisions. Each is None where this request has been recorded, or there is nothing to do.


def decide_activity_paused(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: workflow_service_pb2.PauseActivityRequest,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Hold an activity."""
    if activity.pause is not None or _is_recorded(activity, request):
        return None
    fact = _new_fact(activity, request, _PAUSED)
    fact.is_paused = True
    return _to_record(state, inflight, fact, now)


def decide_activity_unpaused(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: workflow_service_pb2.UnpauseActivityRequest,
    delay: timedelta,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Have an activity go on, so much later; an attempt that backs off does so no longer."""
    if activity.pause is None or _is_recorded(activity, request):
        return None
    fact = _new_fact(activity, request, _UNPAUSED)
    fact.restarts_count = request.reset_attempts
    fact.drops_heartbeat_details = request.reset_heartbeat
    if is_free(activity, inflight) and (
        request.reset_attempts or delay > ZERO or not activity.is_due(now)
    ):
        fact.next_attempt_time.CopyFrom(to_timestamp(now + delay))
    return _to_record(state, inflight, fact, now)


def decide_activity_reset(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: workflow_service_pb2.ResetActivityRequest,
    delay: timedelta,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Have an activity begin anew, so much later; a worker that has an attempt ends that first."""
    if _is_recorded(activity, request):
        return None
    fact = _new_fact(activity, request, _RESET)
    fact.is_paused = activity.pause is not None and request.keep_paused
    fact.restarts_count = True
    fact.restarts_time = True
    fact.drops_heartbeat_details = request.reset_heartbeat
    if is_free(activity, inflight):
        fact.next_attempt_time.CopyFrom(to_timestamp(now + delay))
    return _to_record(state, inflight, fact, now)


def decide_options_updated(
    state: RunState,
    inflight: Inflight,
    activity: ActivityState,
    request: workflow_service_pb2.UpdateActivityOptionsRequest,
    now: datetime,
) -> log_pb2.LogRecord | None:
    """Change an activity's options.

    Raises:
        InvalidArgumentError: An activity could not be scheduled so.
    """
    if _is_recorded(activity, request):
        return None
    options = change_options(activity, request.activity_options, request.update_mask, state.started)
    fact = _new_fact(activity, request, _OPTIONS_UPDATED)
    fact.is_paused = activity.pause is not None
    fact.options.CopyFrom(options)
    moves = options.task_queue.name != activity.scheduled.task_queue.name
    if moves and is_free(activity, inflight):
        fact.next_attempt_time.CopyFrom(to_timestamp(activity.attempt_scheduled_time))
    return _to_record(state, inflight, fact, now)


def _is_recorded(activity: ActivityState, request: Request) -> bool:
    return any(change.request_id == request.request_id for change in activity.changes)


def _new_fact(
    activity: ActivityState,
    request: Request,
    type_: "workflow_pb2.ActivityChangeType.ValueType",
) -> pause_pb2.ActivityChangedFact:
    fact = pause_pb2.ActivityChangedFact(scheduled_event_id=activity.scheduled_event_id)
    fact.change.type = type_
    fact.change.identity = request.identity
    fact.change.reason = request.reason
    fact.change.request_id = request.request_id
    return fact


def _to_record(
    state: RunState, inflight: Inflight, fact: pause_pb2.ActivityChangedFact, now: datetime
) -> log_pb2.LogRecord:
    draft = Draft(state, inflight, now)
    draft.add_machine_fact(NAME, fact.SerializeToString())
    return draft.record


# The fold.


def changed(state: RunState, fact: log_pb2.Fact, time: timestamp_pb2.Timestamp) -> None:
    """Something was done to an activity.

    Raises:
        UnknownRecordError: A newer program has written more.
    """
    noted = pause_pb2.ActivityChangedFact.FromString(fact.machine_fact.data)
    unknown = find_unknown(noted) or find_unknown(noted.change) or find_unknown(noted.options)
    if unknown is not None:
        raise unknown_record(state, unknown)
    activity = state.activities[noted.scheduled_event_id]
    noted.change.time.CopyFrom(time)
    _keep(state, activity, noted.change)
    _pause(activity, noted)
    if noted.HasField("options"):
        before = activity.scheduled.ByteSize()
        activity.scheduled = apply_options(activity.scheduled, noted.options)
        hold(state, activity, activity.scheduled.ByteSize() - before)
    if noted.drops_heartbeat_details and activity.heartbeat_details is not None:
        hold(state, activity, -activity.heartbeat_details.ByteSize())
        activity.heartbeat_details = None
    if noted.restarts_time:
        activity.reset_time = from_timestamp(time)
    if noted.HasField("next_attempt_time"):
        _begin_next_attempt(activity, from_timestamp(noted.next_attempt_time))
        if noted.restarts_count:
            activity.uncounted_attempts = activity.attempt - 1
    elif noted.restarts_count:
        activity.is_reset = True


def _pause(activity: ActivityState, noted: pause_pb2.ActivityChangedFact) -> None:
    time = from_timestamp(noted.change.time)
    if not noted.is_paused:
        if activity.pause is not None:
            activity.resume_time = time
        activity.pause = None
    elif activity.pause is None:
        activity.pause = Pause(time, noted.change.identity, noted.change.reason)


def _begin_next_attempt(activity: ActivityState, time: datetime) -> None:
    activity.attempt += 1
    activity.uncounted_attempts += 1
    activity.attempt_scheduled_time = time


def _keep(state: RunState, activity: ActivityState, change: workflow_pb2.ActivityChange) -> None:
    activity.changes.append(change)
    hold(state, activity, change.ByteSize())
    if len(activity.changes) > _MAX_KEPT_CHANGES:
        hold(state, activity, -activity.changes.pop(0).ByteSize())


# What follows from it.


def observe_changed(inflight: Inflight, fact: log_pb2.Fact) -> None:
    """The next attempt is not offered before it is due."""
    noted = pause_pb2.ActivityChangedFact.FromString(fact.machine_fact.data)
    if noted.HasField("next_attempt_time"):
        inflight.backing_off.add(noted.scheduled_event_id)


def take_changed(
    state: RunState, inflight: Inflight, fact: log_pb2.Fact, now: datetime
) -> TaskRefs:
    """The attempt that is due now: another one than before, or one that was held."""
    noted = pause_pb2.ActivityChangedFact.FromString(fact.machine_fact.data)
    if noted.HasField("next_attempt_time") or noted.change.type == _UNPAUSED:
        return tasks.take(state, inflight, noted.scheduled_event_id, now)
    return ()


def changed_deadlines(state: RunState, fact: log_pb2.Fact) -> Iterator[datetime]:
    """Those that the activity has by now."""
    noted = pause_pb2.ActivityChangedFact.FromString(fact.machine_fact.data)
    return timeouts.of_change(state, noted.scheduled_event_id)
