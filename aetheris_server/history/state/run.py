"""The state of one run.

`RunState` is the fold of the run's log: two hosts that read the same log have equal states. What
is known only in memory, such as which worker has a task, is in `Inflight` and is lost, on purpose,
with the host.

What a machine keeps has a field here, or is one of the `parts`; its type is in the machine's own
file, which imports this one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aetheris.api.v1 import history_pb2, workflow_pb2
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.records import EMPTY_HASH
from aetheris_server.history.state.parts import Parts

if TYPE_CHECKING:
    from datetime import datetime

    from aetheris_server.history.state.machines.activity.values import ActivityState
    from aetheris_server.history.state.machines.timer import TimerState
    from aetheris_server.history.state.machines.workflow_task.values import WorkflowTaskState

KIND = "run"
"""The name of the kind of aggregate that a run is."""

_OPEN_STATUSES = frozenset(
    {
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING,
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_PAUSED,
    }
)


@dataclass(frozen=True, slots=True)
class RunKey(AggregateKey):
    """Names a run in the whole cluster. All runs of a workflow id are in one shard."""

    kind: str = KIND

    @property
    def workflow_id(self) -> str:
        """What callers know it by."""
        return self.name

    @property
    def run_id(self) -> str:
        """Which of the workflow id's runs it is."""
        return self.id


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
        parts: What machines keep that have no field of their own here.
        held_bytes: What the machines keep takes, about; each counts its own.
        buffered_bytes: What the buffered events take.
    """

    key: RunKey
    started: history_pb2.WorkflowExecutionStartedEventAttributes
    start_time: datetime
    first_task_time: datetime | None
    run_deadline_time: datetime | None
    status: workflow_pb2.WorkflowExecutionStatus.ValueType = (
        workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
    )
    run_seq: int = 0
    hash: bytes = EMPTY_HASH
    next_event_id: int = 1
    history_bytes: int = 0
    workflow_task: WorkflowTaskState | None = None
    previous_started_event_id: int = 0
    last_completed_event_id: int = 0
    activities: dict[int, ActivityState] = field(default_factory=dict[int, "ActivityState"])
    activity_ids: dict[str, int] = field(default_factory=dict[str, int])
    timers: dict[str, TimerState] = field(default_factory=dict[str, "TimerState"])
    buffered_events: list[history_pb2.HistoryEvent] = field(
        default_factory=list[history_pb2.HistoryEvent]
    )
    request_ids: set[str] = field(default_factory=set[str])
    signal_count: int = 0
    unhandled_signal_count: int = 0
    cancel_requested: bool = False
    cancel_request_id: str = ""
    close_event: history_pb2.HistoryEvent | None = None
    parts: Parts = field(default_factory=Parts)
    held_bytes: int = 0
    buffered_bytes: int = 0

    @property
    def is_open(self) -> bool:
        """Whether the run may still change."""
        return self.status in _OPEN_STATUSES

    @property
    def is_paused(self) -> bool:
        """Whether nothing of it is given out."""
        return self.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_PAUSED

    @property
    def byte_count(self) -> int:
        """What it takes besides what the run was started with, about."""
        return self.held_bytes + self.buffered_bytes

    @property
    def task_queue(self) -> str:
        """Where its workflow tasks go."""
        return self.started.task_queue.name
