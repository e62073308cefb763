"""What is kept of an activity, what a worker has of it, and what follows from both."""

from dataclasses import dataclass, field
from datetime import datetime

from aetheris.api.v1 import common_pb2, failure_pb2, history_pb2, workflow_pb2
from aetheris_server.history.state.inflight import Inflight, TaskTaker
from aetheris_server.history.state.pause import Pause
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
        pause: That it is paused by itself; None where it is not.
        uncounted_attempts: Those that users and the retry policy do not count: `attempt` itself
            tells attempts apart, and never begins anew.
        reset_time: When the time of all attempts together began anew; None is when it was
            scheduled.
        is_reset: It was reset while a worker had the current attempt: the next one is the first.
        changes: What was done to it from outside, the last ones, oldest first.
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
    pause: Pause | None = None
    uncounted_attempts: int = 0
    reset_time: datetime | None = None
    is_reset: bool = False
    changes: list[workflow_pb2.ActivityChange] = field(
        default_factory=list[workflow_pb2.ActivityChange]
    )
    byte_count: int = 0

    @property
    def is_at_most_once(self) -> bool:
        """Whether a lost attempt must not be handed out again."""
        return self.scheduled.delivery == workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE

    @property
    def counted_attempt(self) -> int:
        """The current attempt as users and the retry policy count it, from 1."""
        return self.attempt - self.uncounted_attempts

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
    """An attempt of an activity that a worker has.

    Attributes:
        start_to_close_timeout: In seconds, as its worker was told; 0 for none.
        heartbeat_timeout: The same.
    """

    scheduled_event_id: int
    attempt: int
    taker: TaskTaker
    started_time: datetime
    started_at: float
    last_heartbeat_time: datetime
    last_heartbeat_at: float
    task_queue: str
    start_to_close_timeout: float
    heartbeat_timeout: float

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
        not is_held(state, activity)
        and is_free(activity, inflight)
        and (activity.scheduled_event_id not in inflight.backing_off or activity.is_due(now))
    )


def is_held(state: RunState, activity: ActivityState) -> bool:
    """Whether it, or its run, is paused: no attempt is given out."""
    return state.is_paused or activity.pause is not None


def expiration_time(activity: ActivityState) -> datetime | None:
    """When all attempts must be over; None is never."""
    timeout = from_duration(activity.scheduled.schedule_to_close_timeout)
    return (activity.reset_time or activity.scheduled_time) + timeout if timeout else None


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
    started: StartedActivity,
) -> tuple[float, "failure_pb2.TimeoutType.ValueType"] | None:
    """The first deadline of a started attempt, and its kind; None if it has none of its own."""
    candidates: list[tuple[float, failure_pb2.TimeoutType.ValueType]] = []
    if started.start_to_close_timeout:
        candidates.append(
            (
                started.started_at + started.start_to_close_timeout,
                failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE,
            )
        )
    if started.heartbeat_timeout:
        candidates.append(
            (
                started.last_heartbeat_at + started.heartbeat_timeout,
                failure_pb2.TIMEOUT_TYPE_HEARTBEAT,
            )
        )
    return min(candidates, default=None)
