"""A record in the making: events with their ids, the event buffer, the next workflow task.

A `Draft` only reads the state; the record that it builds is applied by `apply`.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from typing import ClassVar

from google.protobuf import timestamp_pb2
from google.protobuf.message import Message

from aetheris.api.v1 import failure_pb2, history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import to_timestamp

DEFAULT_TASK_TIMEOUT = timedelta(seconds=10)
_RETRY_INITIAL_INTERVAL = timedelta(seconds=1)
_RETRY_MAXIMUM_INTERVAL = timedelta(seconds=30)

FlushedIds = dict[int, int]
"""What the finishes of one flush tell each other: started events' ids, by the scheduled event's."""


class Draft:
    """The events and facts of one transition of one run.

    Attributes:
        is_buffering: A worker has the run's workflow task: what happens meanwhile waits for its
            end.
        is_closing: The run's last event has been appended.
        record: What has been gathered; empty if nothing changes.
        finishes: Of all drafts, by event type: what machines say is a finish (`OnEvent.finish`).
            On a flush these go behind the rest: workflow code then sees a signal before the result
            that it may have caused. The registry fills it in.
        not_for_code: Of all drafts, the types of events that no workflow task is made for
            (`OnEvent.is_for_code`). The registry fills it in.
    """

    finishes: ClassVar[Mapping[int, Callable[[history_pb2.HistoryEvent, FlushedIds], None]]] = {}
    not_for_code: ClassVar[AbstractSet[int]] = frozenset()

    def __init__(self, state: RunState | None, inflight: Inflight, now: datetime) -> None:
        self.now = now
        self.time: timestamp_pb2.Timestamp = to_timestamp(now)
        self.record = log_pb2.LogRecord(time=self.time)
        self.is_buffering = inflight.workflow_task is not None
        self.is_closing = False
        self._state = state
        self._next_event_id = state.next_event_id if state is not None else 1
        self._has_flushed = False
        self._has_scheduled_task = False
        self._retry_index: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing has been gathered."""
        return not self.record.events and not self.record.facts

    @property
    def next_event_id(self) -> int:
        """The id that the next event gets."""
        return self._next_event_id

    def add(self, event_type: "history_pb2.EventType.ValueType", attributes: Message) -> int:
        """Append an event; its id."""
        event_id = self._next_event_id
        self._next_event_id += 1
        event = self.record.events.add(
            event_id=event_id, event_time=self.time, event_type=event_type
        )
        getattr(event, ATTRIBUTES[event_type]).CopyFrom(attributes)
        return event_id

    def close(self, event_type: "history_pb2.EventType.ValueType", attributes: Message) -> None:
        """Append the event that closes the run, its last."""
        self.add(event_type, attributes)
        self.is_closing = True

    def add_machine_fact(self, machine: str, data: bytes) -> None:
        """Append a fact of a machine that has no field of its own in `Fact`."""
        fact = self.record.facts.add().machine_fact
        fact.machine = machine
        fact.data = data

    def add_or_buffer(
        self, event_type: "history_pb2.EventType.ValueType", attributes: Message
    ) -> int:
        """Append an event, or buffer it while a worker has the workflow task.

        What is buffered already comes first: the task it waited for may have been lost.

        Returns:
            The event's id; 0 if it was buffered.
        """
        if not self.is_buffering:
            self.flush()
            return self.add(event_type, attributes)
        event = self.record.facts.add().event_buffered
        event.event_time.CopyFrom(self.time)
        event.event_type = event_type
        getattr(event, ATTRIBUTES[event_type]).CopyFrom(attributes)
        return 0

    def append(self, event: history_pb2.HistoryEvent) -> int:
        """Append an event that was made before, under the next id; its id."""
        event_id = self._next_event_id
        self._next_event_id += 1
        copy = self.record.events.add()
        copy.CopyFrom(event)
        copy.event_id = event_id
        return event_id

    def flush(self, withdrawn: AbstractSet[int] = frozenset()) -> bool:
        """Append what the state has buffered, but for the withdrawn indexes.

        Returns:
            Whether anything was appended that the code must see; False from the second call on.
        """
        buffered = self._state.buffered_events if self._state is not None else []
        if not buffered or self._has_flushed:
            return False
        self._has_flushed = True
        self.record.facts.add().buffer_flushed.SetInParent()
        kept = [event for index, event in enumerate(buffered) if index not in withdrawn]
        finishes, flushed_ids = Draft.finishes, FlushedIds()
        for event in sorted(kept, key=lambda event: event.event_type in finishes):
            self.append(event)
            on_flush = finishes.get(event.event_type)
            if on_flush is not None:
                on_flush(self.record.events[-1], flushed_ids)
        return any(event.event_type not in Draft.not_for_code for event in kept)

    def end_buffering(self) -> None:
        """From here on events are appended: this record closes the workflow task in flight."""
        self.is_buffering = False

    def ensure_workflow_task(self) -> None:
        """See to it that the run's code will see what this draft has appended.

        A task that is being tried again becomes a first attempt: what it is to decide has changed.
        Nothing is done while a worker has the workflow task, whose end sees to it, nor before a
        delayed start.
        """
        if self.is_buffering or self._has_scheduled_task:
            return
        if self._retry_index is not None:
            del self.record.facts[self._retry_index]
            self._retry_index = None
        elif self._state is not None:
            if self._state.first_task_time is not None:
                return
            task = self._state.workflow_task
            if task is not None and not task.is_transient:
                return
        self.schedule_workflow_task()

    def schedule_workflow_task(self) -> None:
        """Append the event that schedules a workflow task."""
        self._has_scheduled_task = True
        started = self._started_attributes()
        self.add(
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
            history_pb2.WorkflowTaskScheduledEventAttributes(
                task_queue=started.task_queue,
                start_to_close_timeout=started.workflow_task_timeout,
                attempt=1,
            ),
        )

    def retry_workflow_task(
        self,
        attempt: int,
        cause: "history_pb2.WorkflowTaskFailedCause.ValueType",
        failure: failure_pb2.Failure,
        identity: str,
    ) -> None:
        """Schedule the attempt after a failed one; its events are written when it succeeds."""
        self._retry_index = len(self.record.facts)
        retry = self.record.facts.add().workflow_task_retry_scheduled
        retry.attempt = attempt
        retry.due_time.CopyFrom(to_timestamp(self.now + task_retry_interval(attempt)))
        retry.last_cause = cause
        retry.last_failure.CopyFrom(failure)
        retry.last_identity = identity

    def _started_attributes(self) -> history_pb2.WorkflowExecutionStartedEventAttributes:
        if self._state is not None:
            return self._state.started
        return self.record.events[0].workflow_execution_started_event_attributes


def task_retry_interval(attempt: int) -> timedelta:
    """How long a workflow task waits before an attempt.

    Not at all before the second; before the third 1 s, then doubling, to 30 s.
    """
    if attempt <= 2:
        return timedelta(0)
    return min(_RETRY_INITIAL_INTERVAL * 2 ** min(attempt - 3, 10), _RETRY_MAXIMUM_INTERVAL)
