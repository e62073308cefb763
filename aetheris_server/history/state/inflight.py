"""What is known of a run only in memory: which worker has which task, and where its cache is.

None of it is in the log. When the shard moves or the host dies it is gone, the tasks are void and
are offered again; only an at-most-once activity's start is also in the state.

What is waited for here counts by the clock for intervals: fields that end in `_at` are its seconds.
The wall clock may step by hours while a worker has a task, and changes nothing for it. The fields
that end in `_time` are for people.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.run import RunState


@dataclass(slots=True)
class Poller:
    """Who takes a task.

    Attributes:
        sticky_task_queue: Empty for a worker that caches nothing.
        call_id: Of the call that takes the task, the same where it is repeated for want of a
            response: the token of the task that is answered, or what StartTasks has for it. Empty
            where nobody repeats.
    """

    identity: str
    worker_instance_id: str = ""
    sticky_task_queue: str = ""
    worker_version: str = ""
    call_id: bytes = b""

    def is_repeated_by(self, other: "Poller") -> bool:
        """Whether the other is the same call again, which had no response."""
        return self.call_id != b"" and self == other


@dataclass(slots=True)
class StartedWorkflowTask:
    """A workflow task that a worker has.

    Attributes:
        start_id: Must come back in the task token.
        scheduled_event: Of a transient task, whose events are written when it succeeds; else None.
        started_event: As the worker saw it; written as it is when the task closes.
        query_ids: The queries that went along.
    """

    start_id: str
    scheduled_event_id: int
    attempt: int
    poller: Poller
    scheduled_event: history_pb2.HistoryEvent | None
    started_event: history_pb2.HistoryEvent
    started_time: datetime
    deadline_at: float
    query_ids: tuple[str, ...] = ()


@dataclass(slots=True)
class StartedActivity:
    """An attempt of an activity that a worker has."""

    scheduled_event_id: int
    attempt: int
    poller: Poller
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


@dataclass(frozen=True, slots=True)
class Sticky:
    """The worker that has the run cached, by its own queue."""

    task_queue: str
    timeout: timedelta


@dataclass(slots=True)
class Inflight:
    """What workers have of one run.

    Attributes:
        sticky: None until a worker has completed a workflow task, and again after one has not.
        taken_at: When this host took the shard from another; None if it always had the run.
            What was started before is not known, so no wait for a worker counts from earlier.
        backing_off: Activities whose current attempt has not been offered: its time had not come
            when it was last looked at. One that is not among them is due, whatever the wall clock
            says: that may have stepped back since.
        is_task_backing_off: The same for the workflow task.
    """

    workflow_task: StartedWorkflowTask | None = None
    activities: dict[int, StartedActivity] = field(default_factory=dict[int, StartedActivity])
    sticky: Sticky | None = None
    taken_at: float | None = None
    backing_off: set[int] = field(default_factory=set[int])
    is_task_backing_off: bool = False

    @property
    def is_idle(self) -> bool:
        """Whether no worker has anything of the run."""
        return self.workflow_task is None and not self.activities

    def observe(self, state: RunState, record: log_pb2.LogRecord) -> None:
        """Forget the tasks that a record, already applied, has closed; note those that back off."""
        if not state.is_open:
            self.workflow_task = None
            self.activities.clear()
            self.backing_off.clear()
            self.is_task_backing_off = False
            return
        for event in record.events:
            self._observe_event(event)
        for fact in record.facts:
            if fact.HasField("event_buffered"):
                self._observe_event(fact.event_buffered)
            elif fact.HasField("activity_attempt_failed"):
                scheduled_id = fact.activity_attempt_failed.scheduled_event_id
                self.activities.pop(scheduled_id, None)
                self.backing_off.add(scheduled_id)
            elif fact.HasField("activity_attempt_not_delivered"):
                scheduled_id = fact.activity_attempt_not_delivered.scheduled_event_id
                self.activities.pop(scheduled_id, None)
            elif fact.HasField("workflow_task_retry_scheduled"):
                self._lose_workflow_task()
                self.is_task_backing_off = True

    def _lose_workflow_task(self) -> None:
        # The worker did not complete the task, so its cache is not what the next task continues.
        if self.workflow_task is not None:
            self.workflow_task = None
            self.sticky = None

    def _observe_event(self, event: history_pb2.HistoryEvent) -> None:
        match event.event_type:
            case history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                self.workflow_task = None
                self.is_task_backing_off = False
            case (
                history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED
                | history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT
                | history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED
            ):
                self._lose_workflow_task()
                self.is_task_backing_off = False
            case history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                # Written only together with the event that closes the activity.
                started = event.activity_task_started_event_attributes
                self.activities.pop(started.scheduled_event_id, None)
            case _:
                pass
