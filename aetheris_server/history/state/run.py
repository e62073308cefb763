"""The state of one run.

`RunState` is the fold of the run's log: two hosts that read the same log have equal states. What
is known only in memory, such as which worker has a task, is in `Inflight` and is lost, on purpose,
with the host.
"""

from dataclasses import dataclass, field
from datetime import datetime

from aetheris.api.v1 import common_pb2, failure_pb2, history_pb2, workflow_pb2

EMPTY_HASH = bytes(32)
"""What the hash chain of a run begins with."""

# What each takes in memory beside what it carries.
ACTIVITY_BYTES = 1024
REQUEST_BYTES = 128
_TIMER_BYTES = 512

_OPEN_STATUSES = frozenset(
    {
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING,
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_PAUSED,
    }
)


@dataclass(frozen=True, slots=True)
class RunKey:
    """Names a run in the whole cluster. All runs of a workflow id are in one shard."""

    namespace_id: str
    workflow_id: str
    run_id: str


@dataclass(slots=True)
class WorkflowTaskState:
    """A workflow task that has not closed.

    Attributes:
        scheduled_event_id: Its scheduled event. From the second attempt on there is none yet, and
            this is the id that it will get.
        attempt: From 1; the failures in a row before it, plus one.
        scheduled_time: When it was, or is, due; in the future while it backs off.
    """

    scheduled_event_id: int
    attempt: int
    scheduled_time: datetime
    last_failure: failure_pb2.Failure | None = None

    @property
    def is_transient(self) -> bool:
        """Whether its events are written only when it succeeds."""
        return self.attempt > 1

    def is_due(self, now: datetime) -> bool:
        """Whether it does not back off by this clock, which may have stepped back since it was due.

        A first attempt never does.
        """
        return self.attempt == 1 or self.scheduled_time <= now


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
        """Whether the attempt does not back off by this clock. See `WorkflowTaskState.is_due`."""
        return self.attempt == 1 or self.attempt_scheduled_time <= now


@dataclass(slots=True)
class TimerState:
    """A timer that has not fired."""

    timer_id: str
    started_event_id: int
    fire_time: datetime


@dataclass(slots=True)
class RunState:
    """The fold of a run's log.

    Attributes:
        run_seq: Records so far; the next one is run_seq + 1.
        hash: The hash chain's end.
        previous_started_event_id: The last completed workflow task's started event; 0 for none.
        buffered_events: Events that wait for the workflow task in flight; their ids are 0.
        first_task_time: Set until the first workflow task is scheduled: when that is due.
        unhandled_signal_count: Signals that the code has not handled, as of its last decision.
        request_ids: Requests to signal that have been recorded.
        cancel_request_id: The request to cancel that has been recorded; empty for none.
        held_bytes: What open activities and recorded requests take, about.
        buffered_bytes: What the buffered events take.
    """

    key: RunKey
    started: history_pb2.WorkflowExecutionStartedEventAttributes
    start_time: datetime
    first_task_time: datetime | None
    run_deadline_time: datetime | None
    status: "workflow_pb2.WorkflowExecutionStatus.ValueType" = (
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
    )
    run_seq: int = 0
    hash: bytes = EMPTY_HASH
    next_event_id: int = 1
    history_bytes: int = 0
    workflow_task: WorkflowTaskState | None = None
    previous_started_event_id: int = 0
    last_completed_event_id: int = 0
    activities: dict[int, ActivityState] = field(default_factory=dict[int, ActivityState])
    activity_ids: dict[str, int] = field(default_factory=dict[str, int])
    timers: dict[str, TimerState] = field(default_factory=dict[str, TimerState])
    buffered_events: list[history_pb2.HistoryEvent] = field(
        default_factory=list[history_pb2.HistoryEvent]
    )
    request_ids: set[str] = field(default_factory=set[str])
    signal_count: int = 0
    unhandled_signal_count: int = 0
    cancel_requested: bool = False
    cancel_request_id: str = ""
    close_event: history_pb2.HistoryEvent | None = None
    held_bytes: int = 0
    buffered_bytes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the run may still change."""
        return self.status in _OPEN_STATUSES

    @property
    def byte_count(self) -> int:
        """What it takes besides what the run was started with, about."""
        return self.held_bytes + self.buffered_bytes + _TIMER_BYTES * len(self.timers)

    @property
    def task_queue(self) -> str:
        """Where its workflow tasks go."""
        return self.started.task_queue.name
