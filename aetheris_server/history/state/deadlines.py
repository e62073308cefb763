"""When time alone changes a run, and what it changes.

Durable deadlines follow from the state; they survive a crash through the executions row's
wake_time. Those of tasks in flight follow from `Inflight` and die with it.
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
    schedule_to_start_time,
    started_deadline,
)
from aetheris_server.history.state.close import append_run_timed_out
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.run import ActivityState, RunState, TimerState
from aetheris_server.history.state.workflow_task import append_timed_out as append_task_timed_out


def durable_deadline(state: RunState, after: datetime) -> datetime | None:
    """The first deadline later than `after` that must survive a crash; None if there is none.

    One that has passed and is still in the state, such as the end of a backoff, is an obligation.
    """
    return min((moment for moment in _durable_deadlines(state) if moment > after), default=None)


def next_deadline(state: RunState, inflight: Inflight, after: datetime) -> datetime | None:
    """The first deadline of all that is later than `after`; None if there is none."""
    moments = list(_durable_deadlines(state))
    if inflight.workflow_task is not None:
        moments.append(inflight.workflow_task.deadline_time)
    for scheduled_id, started in inflight.activities.items():
        activity = state.activities.get(scheduled_id)
        deadline = started_deadline(activity, started) if activity is not None else None
        if deadline is not None:
            moments.append(deadline[0])
    if inflight.taken_time is not None:
        moments.extend(_waits_anew(state, inflight.taken_time))
    return min((moment for moment in moments if moment > after), default=None)


def _durable_deadlines(state: RunState) -> Iterator[datetime]:
    if not state.is_open:
        return
    if state.run_deadline_time is not None:
        yield state.run_deadline_time
    if state.first_task_time is not None:
        yield state.first_task_time
    task = state.workflow_task
    if task is not None and task.is_transient:
        yield task.scheduled_time
    for timer in state.timers.values():
        yield timer.fire_time
    for activity in state.activities.values():
        yield from _activity_deadlines(activity)


def _activity_deadlines(activity: ActivityState) -> Iterator[datetime]:
    expiration = expiration_time(activity)
    if expiration is not None:
        yield expiration
    if activity.started_time is None:
        start = schedule_to_start_time(activity)
        if start is not None:
            yield start
    if activity.attempt > 1:
        yield activity.attempt_scheduled_time


def _waits_anew(state: RunState, taken_time: datetime) -> Iterator[datetime]:
    for activity in state.activities.values():
        start = schedule_to_start_time(activity, taken_time)
        if start is not None:
            yield start


def decide_due(state: RunState, inflight: Inflight, now: datetime) -> log_pb2.LogRecord | None:
    """Everything that is due at `now`, as one record; None if nothing is.

    An attempt whose backoff is over changes nothing: it is an obligation from then on.
    """
    if not state.is_open:
        return None
    draft = Draft(state, inflight, now)
    if state.run_deadline_time is not None and state.run_deadline_time <= now:
        append_run_timed_out(draft, inflight)
        return draft.record
    if inflight.workflow_task is not None and inflight.workflow_task.deadline_time <= now:
        append_task_timed_out(draft, inflight.workflow_task)
    if state.first_task_time is not None and state.first_task_time <= now:
        draft.schedule_workflow_task()
    _fire_timers(draft, state, now)
    _time_out_activities(draft, state, inflight, now)
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


def _time_out_activities(draft: Draft, state: RunState, inflight: Inflight, now: datetime) -> None:
    for activity in state.activities.values():
        timeout_type = _due_timeout(activity, inflight, now)
        if timeout_type is not None:
            append_activity_timed_out(draft, inflight, activity, timeout_type)


def _due_timeout(
    activity: ActivityState, inflight: Inflight, now: datetime
) -> "failure_pb2.TimeoutType.ValueType | None":
    expiration = expiration_time(activity)
    if expiration is not None and expiration <= now:
        return failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
    started = inflight.activities.get(activity.scheduled_event_id)
    if started is not None:
        deadline = started_deadline(activity, started)
        return deadline[1] if deadline is not None and deadline[0] <= now else None
    start = schedule_to_start_time(activity, inflight.taken_time)
    if start is not None and start <= now:
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
                moments.extend(_durable_deadlines(state))
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
        if fact.HasField("activity_attempt_failed"):
            activity = state.activities.get(fact.activity_attempt_failed.scheduled_event_id)
            if activity is not None:
                moments.extend(_activity_deadlines(activity))
        elif fact.HasField("workflow_task_retry_scheduled") and state.workflow_task is not None:
            moments.append(state.workflow_task.scheduled_time)
    return min(moments, default=None)
