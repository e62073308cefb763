"""What came behind the point, in the base and in the runs that follow it, and reaches the new run.

Signals and a request to cancel come again, unless they are excluded, each once: by their request
ids, which the new run knows from then on.

An at-most-once activity that the base had begun is not begun again. What the base has learnt of it,
the new run learns as well; what nobody knows is unknown to it, too. The same is learnt of children,
and of what was asked of other runs.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.machines.child.endings import CLOSE_EVENTS
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp

MAX_BYTES = 64 * 1024 * 1024
"""What is kept of the events behind the point at most."""

_EXCLUSIONS: dict[int, "workflow_service_pb2.ReapplyExclude.ValueType"] = {
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: (
        workflow_service_pb2.REAPPLY_EXCLUDE_SIGNAL
    ),
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED: (
        workflow_service_pb2.REAPPLY_EXCLUDE_CANCEL_REQUEST
    ),
}
_STARTED = history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED
# What the code can be told. That it was cancelled is not: in the new run nobody has asked for it.
_OUTCOMES = frozenset(
    {
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED,
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
    }
)


# Of children, and of signals and requests to cancel that went to other runs.
_OTHERS = frozenset(
    {
        history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED,
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED,
        history_pb2.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED,
        history_pb2.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED,
        history_pb2.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED,
        history_pb2.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED,
        *CLOSE_EVENTS.values(),
    }
)


@dataclass(slots=True)
class Begun:
    """An activity of which a worker has, or had, an attempt.

    Attributes:
        outcome: The event by which it closed; None where nobody knows.
    """

    attempt: int
    identity: str
    started_time: datetime
    outcome: history_pb2.HistoryEvent | None = None


@dataclass(slots=True)
class LaterEvents:
    """What is gathered of it.

    Attributes:
        excluded: What does not come again.
        events: What comes again, in the order in which it came.
        others: What the base has learnt of other runs, by the event that asked, and by type.
        begun: What the base has begun, by scheduled event: all at-most-once activities, and of
            others some.
    """

    excluded: Collection["workflow_service_pb2.ReapplyExclude.ValueType"]
    events: list[history_pb2.HistoryEvent] = field(default_factory=list[history_pb2.HistoryEvent])
    others: dict[int, dict[int, history_pb2.HistoryEvent]] = field(
        default_factory=dict[int, dict[int, history_pb2.HistoryEvent]]
    )
    begun: dict[int, Begun] = field(default_factory=dict[int, Begun])
    _buffered: list[history_pb2.HistoryEvent] = field(
        default_factory=list[history_pb2.HistoryEvent]
    )
    _byte_count: int = 0

    @property
    def takes_others(self) -> bool:
        """Whether runs that follow the base may have something that comes again."""
        return any(exclusion not in self.excluded for exclusion in _EXCLUSIONS.values())

    def take(
        self,
        record: log_pb2.LogRecord,
        events: Iterable[history_pb2.HistoryEvent],
        *,
        of_base: bool,
    ) -> None:
        """Take a run's next record; of the base also those before the point.

        Args:
            record: Whose facts count.
            events: Those of it that are behind the point.
            of_base: It is the base's.

        Raises:
            InvalidArgumentError: There is more than can be kept.
        """
        for event in events:
            if self._is_reapplied(event):
                self._count(event)
                self.events.append(event)
            elif of_base:
                self._note_answer(event)
        for fact in record.facts:
            kind = fact.WhichOneof("fact")
            if kind == "event_buffered":
                # A buffer is small; what is in it comes again when it is flushed.
                if self._is_reapplied(fact.event_buffered):
                    self._buffered.append(fact.event_buffered)
                elif of_base:
                    self._note_answer(fact.event_buffered)
            elif kind == "buffer_flushed":
                self._buffered.clear()
            elif of_base:
                self._note_start(fact, from_timestamp(record.time))

    def end_run(self, *, is_buffer_flushed: bool) -> None:
        """The run has been read to its end. What waits in it comes again, unless it has come with
        the record that closes the run.
        """
        if not is_buffer_flushed:
            self.events += self._buffered
        self._buffered.clear()

    def take_state(self, base: RunState) -> None:
        """Take what the base, which is open, knows of its activities."""
        for activity in base.activities.values():
            if activity.started_time is None:
                self.begun.pop(activity.scheduled_event_id, None)
            else:
                self.begun[activity.scheduled_event_id] = Begun(
                    activity.attempt, activity.started_identity, activity.started_time
                )

    def _is_reapplied(self, event: history_pb2.HistoryEvent) -> bool:
        exclusion = _EXCLUSIONS.get(event.event_type)
        return exclusion is not None and exclusion not in self.excluded

    def _note_answer(self, event: history_pb2.HistoryEvent) -> None:
        """What the base has asked for has come to something. The start of an activity, which is
        told of only when it closes, comes first.
        """
        if event.event_type == _STARTED:
            attributes = event.activity_task_started_event_attributes
            self.begun[attributes.scheduled_event_id] = Begun(
                attributes.attempt, attributes.identity, from_timestamp(attributes.started_time)
            )
        elif event.event_type in _OUTCOMES:
            begun = self.begun.get(getattr(event, ATTRIBUTES[event.event_type]).scheduled_event_id)
            if begun is not None:
                begun.outcome = event
        elif event.event_type in _OTHERS:
            # One that was buffered comes again with its id.
            initiated_id = getattr(event, ATTRIBUTES[event.event_type]).initiated_event_id
            self.others.setdefault(initiated_id, {})[event.event_type] = event

    def _count(self, event: history_pb2.HistoryEvent) -> None:
        self._byte_count += event.ByteSize()
        if self._byte_count > MAX_BYTES:
            raise InvalidArgumentError(
                "reapply_exclude",
                f"what came behind the point takes more than {MAX_BYTES} bytes; exclude some of it",
            )

    def _note_start(self, fact: log_pb2.Fact, time: datetime) -> None:
        match fact.WhichOneof("fact"):
            case "activity_attempt_started":
                started = fact.activity_attempt_started
                self.begun[started.scheduled_event_id] = Begun(
                    started.attempt, started.identity, time
                )
            case "activity_attempt_not_delivered":
                self.begun.pop(fact.activity_attempt_not_delivered.scheduled_event_id, None)
            case "activity_attempt_failed":
                self.begun.pop(fact.activity_attempt_failed.scheduled_event_id, None)
            case _:
                pass
