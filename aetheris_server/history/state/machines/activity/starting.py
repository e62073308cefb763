"""Giving an activity's attempt to a worker."""

from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight, TaskTaker
from aetheris_server.history.state.machines.activity.values import (
    ActivityState,
    StartedActivity,
    is_owed,
)
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_duration


def is_startable(
    state: RunState, inflight: Inflight, scheduled_event_id: int, attempt: int, now: datetime
) -> bool:
    """Whether this attempt is the one that is due and that nobody has.

    One that is refused because it backs off is offered when its time has come.
    """
    activity = state.activities.get(scheduled_event_id)
    return (
        activity is not None
        and activity.attempt == attempt
        and is_owed(state, activity, inflight, now)
    )


def start_activity(
    activity: ActivityState, inflight: Inflight, taker: TaskTaker, now: datetime, at: float
) -> StartedActivity:
    """Give an activity's current attempt to a worker. The caller has checked `is_startable`.

    An at-most-once attempt stays started: that its taker has gone does not say that it had not
    got the task.
    """
    scheduled = activity.scheduled
    started = StartedActivity(
        scheduled_event_id=activity.scheduled_event_id,
        attempt=activity.attempt,
        taker=taker,
        started_time=now,
        started_at=at,
        last_heartbeat_time=now,
        last_heartbeat_at=at,
        task_queue=scheduled.task_queue.name,
        start_to_close_timeout=from_duration(scheduled.start_to_close_timeout).total_seconds(),
        heartbeat_timeout=from_duration(scheduled.heartbeat_timeout).total_seconds(),
    )
    inflight.activities[activity.scheduled_event_id] = started
    inflight.backing_off.discard(activity.scheduled_event_id)
    return started


def decide_attempt_started(
    state: RunState, inflight: Inflight, activity: ActivityState, taker: TaskTaker, now: datetime
) -> log_pb2.LogRecord:
    """Note, before the worker gets it, that an at-most-once attempt is given out."""
    draft = Draft(state, inflight, now)
    fact = draft.record.facts.add().activity_attempt_started
    fact.scheduled_event_id = activity.scheduled_event_id
    fact.attempt = activity.attempt
    fact.identity = taker.identity
    return draft.record


def decide_not_delivered(
    state: RunState, inflight: Inflight, activity: ActivityState, now: datetime
) -> log_pb2.LogRecord:
    """An at-most-once attempt that was given out certainly did not reach its worker."""
    draft = Draft(state, inflight, now)
    fact = draft.record.facts.add().activity_attempt_not_delivered
    fact.scheduled_event_id = activity.scheduled_event_id
    fact.attempt = activity.attempt
    return draft.record


def restore(state: RunState, inflight: Inflight, now: datetime, at: float) -> None:
    """After a load, take up the durable starts, and note the attempts that may back off."""
    for activity in state.activities.values():
        if activity.started_time is not None:
            taker = TaskTaker(activity.started_identity)
            started = start_activity(activity, inflight, taker, now, at)
            started.backdate(activity.started_time, now, at)
        elif activity.attempt > 1:
            inflight.backing_off.add(activity.scheduled_event_id)
