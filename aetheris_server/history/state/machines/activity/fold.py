"""What an activity's events and facts change."""

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import common_pb2, history_pb2, workflow_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.draft import FlushedIds
from aetheris_server.history.state.failures import trim
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import unknown_record
from aetheris_server.history.state.machines.activity.values import ActivityState
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp

ACTIVITY_BYTES = 1024
"""What one takes in memory beside what it carries."""

DELIVERIES = frozenset(workflow_pb2.ActivityDelivery.values())
"""The kinds of delivery that this program knows."""

_MAX_KEPT_ATTEMPTS = 100

# Events, to the state.


def scheduled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """A first attempt is due.

    Raises:
        UnknownRecordError: Its kind of delivery is not known.
    """
    attributes = event.activity_task_scheduled_event_attributes
    if attributes.delivery not in DELIVERIES:
        raise unknown_record(state, f"the activity delivery {attributes.delivery}")
    time = from_timestamp(event.event_time)
    byte_count = ACTIVITY_BYTES + attributes.ByteSize()
    state.held_bytes += byte_count
    state.activities[event.event_id] = ActivityState(
        scheduled_event_id=event.event_id,
        scheduled=attributes,
        scheduled_time=time,
        attempt=1,
        attempt_scheduled_time=time,
        byte_count=byte_count,
    )
    state.activity_ids[attributes.activity_id] = event.event_id


def completed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """It has closed."""
    _close_one(state, event.activity_task_completed_event_attributes.scheduled_event_id)


def failed(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """It has closed."""
    _close_one(state, event.activity_task_failed_event_attributes.scheduled_event_id)


def timed_out(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """It has closed."""
    _close_one(state, event.activity_task_timed_out_event_attributes.scheduled_event_id)


def cancelled(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """It has closed."""
    _close_one(state, event.activity_task_cancelled_event_attributes.scheduled_event_id)


def _close_one(state: RunState, scheduled_event_id: int) -> None:
    activity = state.activities.pop(scheduled_event_id, None)
    if activity is not None:
        del state.activity_ids[activity.scheduled.activity_id]
        state.held_bytes -= activity.byte_count


def cancel_requested(state: RunState, event: history_pb2.HistoryEvent) -> None:
    """Its worker is to be told."""
    scheduled_id = event.activity_task_cancel_requested_event_attributes.scheduled_event_id
    activity = state.activities.get(scheduled_id)
    # None: its end is buffered, because the worker asked before it could know.
    if activity is not None:
        activity.cancel_requested_event_id = event.event_id


def schedule_anew(state: RunState, time: timestamp_pb2.Timestamp) -> None:
    """The run begins here, at this time, with what another one had open."""
    for activity in state.activities.values():
        activity.scheduled_time = activity.attempt_scheduled_time = from_timestamp(time)


def drop(state: RunState) -> None:
    """The run has closed."""
    state.held_bytes -= sum(activity.byte_count for activity in state.activities.values())
    state.activities.clear()
    state.activity_ids.clear()


# Facts, to the state.


def attempt_failed(state: RunState, fact: log_pb2.Fact, time: timestamp_pb2.Timestamp) -> None:
    """The next attempt is pending."""
    failed = fact.activity_attempt_failed
    activity = state.activities[failed.scheduled_event_id]
    attempt = workflow_pb2.ActivityAttempt(
        attempt=activity.counted_attempt,
        start_time=failed.started_time if failed.HasField("started_time") else None,
        end_time=time,
        identity=failed.identity,
        failure=trim(failed.failure),
        next_attempt_time=failed.next_attempt_time,
    )
    activity.attempts.append(attempt)
    hold(state, activity, attempt.ByteSize())
    while len(activity.attempts) > _MAX_KEPT_ATTEMPTS:
        hold(state, activity, -activity.attempts.pop(0).ByteSize())
    activity.attempt = failed.attempt + 1
    if activity.is_reset:
        activity.is_reset = False
        activity.uncounted_attempts = failed.attempt
    elif failed.is_uncounted:
        activity.uncounted_attempts += 1
    activity.attempt_scheduled_time = from_timestamp(failed.next_attempt_time)
    activity.started_identity = ""
    activity.started_time = None
    if failed.HasField("heartbeat_details"):
        _hold_details(state, activity, failed.heartbeat_details)


def attempt_started(state: RunState, fact: log_pb2.Fact, time: timestamp_pb2.Timestamp) -> None:
    """A worker may have the at-most-once attempt from now on."""
    started = fact.activity_attempt_started
    activity = state.activities[started.scheduled_event_id]
    activity.started_identity = started.identity
    activity.started_time = from_timestamp(time)


def attempt_not_delivered(
    state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp
) -> None:
    """Certainly no worker has the at-most-once attempt."""
    activity = state.activities[fact.activity_attempt_not_delivered.scheduled_event_id]
    activity.started_identity = ""
    activity.started_time = None


def heartbeat_recorded(state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp) -> None:
    """The next attempt will be told."""
    heartbeat = fact.activity_heartbeat_recorded
    _hold_details(state, state.activities[heartbeat.scheduled_event_id], heartbeat.details)


def hold(state: RunState, activity: ActivityState, byte_count: int) -> None:
    """Count what an activity takes from now on, or, below 0, does not take any more."""
    activity.byte_count += byte_count
    state.held_bytes += byte_count


def _hold_details(state: RunState, activity: ActivityState, details: common_pb2.Payloads) -> None:
    known = activity.heartbeat_details
    hold(state, activity, details.ByteSize() - (known.ByteSize() if known is not None else 0))
    activity.heartbeat_details = details


# To what workers have.


def observe_closing(inflight: Inflight, event: history_pb2.HistoryEvent) -> None:
    """The started event is written only together with the one that closes the activity."""
    started = event.activity_task_started_event_attributes
    inflight.activities.pop(started.scheduled_event_id, None)


def observe_attempt_failed(inflight: Inflight, fact: log_pb2.Fact) -> None:
    """The next attempt is not offered before it is due."""
    scheduled_id = fact.activity_attempt_failed.scheduled_event_id
    inflight.activities.pop(scheduled_id, None)
    inflight.backing_off.add(scheduled_id)


def observe_not_delivered(inflight: Inflight, fact: log_pb2.Fact) -> None:
    """Nobody has the attempt."""
    inflight.activities.pop(fact.activity_attempt_not_delivered.scheduled_event_id, None)


# Events that were buffered, as they get their ids.


def note_started_id(event: history_pb2.HistoryEvent, flushed_ids: FlushedIds) -> None:
    """The started event: the one that closes the activity comes right behind it, and names it."""
    scheduled_event_id = event.activity_task_started_event_attributes.scheduled_event_id
    flushed_ids[scheduled_event_id] = event.event_id


def fill_started_id(event: history_pb2.HistoryEvent, flushed_ids: FlushedIds) -> None:
    """One that closes an activity; 0 for one that never started."""
    attributes = getattr(event, ATTRIBUTES[event.event_type])
    attributes.started_event_id = flushed_ids.get(attributes.scheduled_event_id, 0)
