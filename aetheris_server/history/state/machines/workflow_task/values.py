"""What is kept of a workflow task, and what a worker has when it has one."""

from dataclasses import dataclass
from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2
from aetheris_server.history.state.inflight import Inflight, TaskTaker


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
class StartedWorkflowTask:
    """A workflow task that a worker has.

    Attributes:
        start_id: Must come back in the task token.
        scheduled_event: Of a transient or speculative task, whose events are written when it
            succeeds; else None.
        started_event: As the worker saw it; written as it is when the task closes.
        query_ids: The queries that went along.
        updates: The updates that went along.
        is_speculative: It is there for them alone: no record tells of it.
    """

    start_id: str
    scheduled_event_id: int
    attempt: int
    taker: TaskTaker
    scheduled_event: history_pb2.HistoryEvent | None
    started_event: history_pb2.HistoryEvent
    started_time: datetime
    deadline_at: float
    query_ids: tuple[str, ...] = ()
    updates: tuple[history_pb2.UpdateRequest, ...] = ()
    is_speculative: bool = False


def is_owed(task: WorkflowTaskState, inflight: Inflight, now: datetime) -> bool:
    """Whether the task is due, or has been, and nobody has it."""
    return inflight.workflow_task is None and (not inflight.is_task_backing_off or task.is_due(now))
