"""What is kept of an activity, what a worker has of it, and what follows from both."""

from dataclasses import dataclass, field
from datetime import datetime

from aetheris.api.v1 import common_pb2, failure_pb2, history_pb2, workflow_pb2
from aetheris_server.history.state.inflight import Inflight, TaskTaker
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_duration


@dataclass(slots=True)
class ActivityState:
    """An activity that has not closed.

    Attributes:
        attempt: From 1.
        attempt_scheduled_time: When the current attempt was, or is, due.
        cancel_requested_event_id: 0 for none.
        attempts: The last failed attempts, oldest first, their failures trimmed.
        started_identity: At-most-once only: who was given the current attempt.
        started_time: At-most-once only: when that was; None for not yet.
        resume_time: When it was last unpaused, by itself or with its run: the time to find a worker
            counts from then on. None for never.
        byte_count: What its input, its attempts and its heartbeat details take, about.
    """

    scheduled_event_id: int
    scheduled: history_pb2.ActivityTaskScheduledEventAttributes
    scheduled_time: datetime
    attempt: int
    attempt_scheduled_time: datetime
    cancel_requested_event_id: int = 0
    heartbeat_details: common_pb2.Payloads | None = None
    attempts: list[workflow_pb2.ActivityAttempt] = field(
        default_factory=list[workflow_pb2.ActivityAttempt]
    )
    started_identity: str = ""
    started_time: datetime | None = None
    resume_time: datetime | None = None
    byte_count: int = 0

    @property
    def is_at_most_once(self) -> bool:
        """Whether a lost attempt must not be handed out again."""
        return self.scheduled.delivery == workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE

    @property
    def last_failure(self) -> failure_pb2.Failure | None:
        """Why the attempt before the current one failed."""
        return self.attempts[-1].failure if self.attempts else None

    def is_due(self, now: datetime) -> bool:
        """Whether the attempt does not back off by this clock, which may have stepped back since
        it was due.

        A first attempt never does.
        """
        return self.attempt == 1 or self.attempt_scheduled_time <= now


@dataclass(slots=True)
class StartedActivity:
    """An attempt of an activity that a worker has."""

    scheduled_event_id: int
    attempt: int
    taker: TaskTaker
    started_time: datetime
    started_at: float
    last_heartbeat_time: datetime
    last_heartbeat_at: float
    task_queue: str

    def note_heartbeat(self, now: datetime, at: float) -> None:
        """The worker lives."""
        self.last_heartbeat_time = now
        self.last_heartbeat_at = at

    def backdate(self, started_time: datetime, now: datetime, at: float) -> None:
        """It started before this host knew of it, by another clock: no longer ago than `now`."""
        elapsed = (now - started_time).total_seconds()
        self.started_time = started_time
        self.started_at = at - max(elapsed, 0.0)


def is_free(activity: ActivityState, inflight: Inflight) -> bool:
    """Whether nobody has, or may have, the current attempt."""
    return activity.scheduled_event_id not in inflight.activities and activity.started_time is None


def is_owed(state: RunState, activity: ActivityState, inflight: Inflight, now: datetime) -> bool:
    """Whether the current attempt is due, or has been, and nobody has, or may have, it. Nothing is
    owed of what is paused.
    """
    return (
        not state.is_paused
        and is_free(activity, inflight)
        and (activity.scheduled_event_id not in inflight.backing_off or activity.is_due(now))
    )


def expiration_time(activity: ActivityState) -> datetime | None:
    """When all attempts must be over; None is never."""
    timeout = from_duration(activity.scheduled.schedule_to_close_timeout)
    return activity.scheduled_time + timeout if timeout else None


def schedule_to_start_time(activity: ActivityState) -> datetime | None:
    """When the current attempt must have found a worker; None is never."""
    timeout = from_duration(activity.scheduled.schedule_to_start_timeout)
    if not timeout:
        return None
    begin = activity.attempt_scheduled_time
    if activity.resume_time is not None:
        begin = max(begin, activity.resume_time)
    return begin + timeout


def waits_anew_until(activity: ActivityState, inflight: Inflight) -> float | None:
    """Until when an attempt that a worker may have had before this host took the shard waits for
    another, even if its `schedule_to_start_time` has passed; None if this host always had the run.
    """
    timeout = from_duration(activity.scheduled.schedule_to_start_timeout)
    if inflight.taken_at is None or not timeout or not is_free(activity, inflight):
        return None
    return inflight.taken_at + timeout.total_seconds()


def started_deadline(
    activity: ActivityState, started: StartedActivity
) -> tuple[float, "failure_pb2.TimeoutType.ValueType"] | None:
    """The first deadline of a started attempt, and its kind; None if it has none of its own."""
    candidates: list[tuple[float, failure_pb2.TimeoutType.ValueType]] = []
    start_to_close = from_duration(activity.scheduled.start_to_close_timeout).total_seconds()
    if start_to_close:
        candidates.append(
            (started.started_at + start_to_close, failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE)
        )
    heartbeat = from_duration(activity.scheduled.heartbeat_timeout).total_seconds()
    if heartbeat:
        candidates.append(
            (started.last_heartbeat_at + heartbeat, failure_pb2.TIMEOUT_TYPE_HEARTBEAT)
        )
    return min(candidates, default=None)
