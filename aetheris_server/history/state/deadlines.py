"""When time alone changes a run, and what it changes.

Durable deadlines follow from the state, by the wall clock; they survive a crash through the
executions row's wake_time. Those of tasks in flight follow from `Inflight`, by the clock for
intervals, and die with it. Neither is ever a window of time that has passed: what is owed is what
the state says and has not been done, so that no step of the wall clock skips anything.
"""

from collections.abc import Iterator
from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.activity import (
    append_timed_out as append_activity_timed_out,
)
from aetheris_server.history.state.activity import (
    expiration_time,
    is_free,
    schedule_to_start_time,
    started_deadline,
    waits_anew_until,
)
from aetheris_server.history.state.close import append_run_timed_out
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.run import ActivityState, RunState, TimerState
from aetheris_server.history.state.workflow_task import append_timed_out as append_task_timed_out


def next_deadline(state: RunState, inflight: Inflight, now: datetime) -> datetime | None:
    """The first durable deadline that nobody has met yet; None if there is none.

    Not later than `now` only where something is due.
    """
    if not state.is_open:
        return None
    return min(_durable_deadlines(state, inflight, now), default=None)


def next_inflight_deadline(state: RunState, inflight: Inflight, at: float) -> float | None:
    """The first deadline later than `at` of what workers have, or may have had; None for none."""
    moments: list[float] = []
    if inflight.workflow_task is not None:
        moments.append(inflight.workflow_task.deadline_at)
    for scheduled_id, started in inflight.activities.items():
        activity = state.activities.get(scheduled_id)
        deadline = started_deadline(activity, started) if activity is not None else None
        if deadline is not None:
            moments.append(deadline[0])
    if inflight.taken_at is not None:
        for activity in state.activities.values():
            until = waits_anew_until(activity, inflight)
            if until is not None:
                moments.append(until)
    return min((moment for moment in moments if moment > at), default=None)


def _durable_deadlines(state: RunState, inflight: Inflight, now: datetime) -> Iterator[datetime]:
    yield from _start_deadlines(state)
    task = state.workflow_task
    if task is not None and inflight.is_task_backing_off:
        yield task.scheduled_time
    for timer in state.timers.values():
        yield timer.fire_time
    for activity in state.activities.values():
        expiration = expiration_time(activity)
        if expiration is not None:
            yield expiration
        start = schedule_to_start_time(activity)
        if start is not None and activity.started_time is None:
            # Of an attempt that a worker has it counts again if this host dies. One that waits
            # anew is looked at when that wait is over.
            is_waiting = inflight.taken_at is None and is_free(activity, inflight)
            if start > now or is_waiting:
                yield start
        if activity.scheduled_event_id in inflight.backing_off:
            yield activity.attempt_scheduled_time


def _start_deadlines(state: RunState) -> Iterator[datetime]:
    if state.run_deadline_time is not None:
        yield state.run_deadline_time
    if state.first_task_time is not None:
        yield state.first_task_time


def _activity_deadlines(activity: ActivityState) -> Iterator[datetime]:
    for moment in (expiration_time(activity), schedule_to_start_time(activity)):
        if moment is not None:
            yield moment
    if activity.attempt > 1:
        yield activity.attempt_scheduled_time


def decide_due(
    state: RunState, inflight: Inflight, now: datetime, at: float
) -> log_pb2.LogRecord | None:
    """Everything that is due, as one record; None if nothing is.

    An attempt whose backoff is over changes nothing: see `obligations.take_due_retries`.

    Args:
        state: The run's.
        inflight: What workers have of it.
        now: The time by the wall clock, for durable deadlines.
        at: The time by the clock for intervals, for those of tasks in flight.
    """
    if not state.is_open:
        return None
    draft = Draft(state, inflight, now)
    if state.run_deadline_time is not None and state.run_deadline_time <= now:
        append_run_timed_out(draft, inflight)
        return draft.record
    if inflight.workflow_task is not None and inflight.workflow_task.deadline_at <= at:
        append_task_timed_out(draft, inflight.workflow_task)
    if state.first_task_time is not None and state.first_task_time <= now:
        draft.schedule_workflow_task()
    _fire_timers(draft, state, now)
    _time_out_activities(draft, state, inflight, now, at)
    return None if draft.is_empty else draft.record


def _fire_timers(draft: Draft, state: RunState, now: datetime) -> None:
    due: list[TimerState] = sorted(
        (timer for timer in state.timers.values() if timer.fire_time <= now),
        key=lambda timer: (timer.fire_time, timer.started_event_id),
    )
    for timer in due:
        draft.add_or_buffer(
            history_pb2.EVENT_TYPE_TIMER_FIRED,
            history_pb2.TimerFiredEventAttributes(
                timer_id=timer.timer_id, started_event_id=timer.started_event_id
            ),
        )
    if due:
        draft.ensure_workflow_task()


def _time_out_activities(
    draft: Draft, state: RunState, inflight: Inflight, now: datetime, at: float
) -> None:
    for activity in state.activities.values():
        timeout_type = _due_timeout(activity, inflight, now, at)
        if timeout_type is not None:
            append_activity_timed_out(draft, inflight, activity, timeout_type)


def _due_timeout(
    activity: ActivityState, inflight: Inflight, now: datetime, at: float
) -> "failure_pb2.TimeoutType.ValueType | None":
    expiration = expiration_time(activity)
    if expiration is not None and expiration <= now:
        return failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
    started = inflight.activities.get(activity.scheduled_event_id)
    if started is not None:
        deadline = started_deadline(activity, started)
        return deadline[1] if deadline is not None and deadline[0] <= at else None
    start = schedule_to_start_time(activity)
    anew = waits_anew_until(activity, inflight)
    if start is not None and start <= now and (anew is None or anew <= at):
        return failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START
    return None


def new_deadline(state: RunState, record: log_pb2.LogRecord) -> datetime | None:
    """The first durable deadline that a record, already applied, has brought.

    Costs by the record, not by the state: a run with thousands of timers pays for each once.

    Returns:
        It, or None if the record brought none.
    """
    moments: list[datetime] = []
    for event in record.events:
        match event.event_type:
            case history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
                moments.extend(_start_deadlines(state))
            case history_pb2.EVENT_TYPE_TIMER_STARTED:
                timer = state.timers.get(event.timer_started_event_attributes.timer_id)
                if timer is not None:
                    moments.append(timer.fire_time)
            case history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                activity = state.activities.get(event.event_id)
                if activity is not None:
                    moments.extend(_activity_deadlines(activity))
            case _:
                pass
    for fact in record.facts:
        moments.extend(_fact_deadlines(state, fact))
    return min(moments, default=None)


def _fact_deadlines(state: RunState, fact: log_pb2.Fact) -> Iterator[datetime]:
    if fact.HasField("activity_attempt_failed"):
        activity = state.activities.get(fact.activity_attempt_failed.scheduled_event_id)
        if activity is not None:
            yield from _activity_deadlines(activity)
    elif fact.HasField("activity_attempt_not_delivered"):
        activity = state.activities[fact.activity_attempt_not_delivered.scheduled_event_id]
        # Met, or passed by, while a worker might have had it.
        if (start := schedule_to_start_time(activity)) is not None:
            yield start
    elif fact.HasField("workflow_task_retry_scheduled") and state.workflow_task is not None:
        yield state.workflow_task.scheduled_time
