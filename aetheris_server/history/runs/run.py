"""A run in memory, as an aggregate: its state, what workers have of it, its newest events, and who
waits for it.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2, worker_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import ShardNotOwnedError
from aetheris_server.history.aggregates.aggregate import FIXED_BYTES, Aggregate
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.obligation import Obligation
from aetheris_server.history.projections.registry import PROJECTIONS
from aetheris_server.history.runs.index import (
    to_execution_notes,
    to_execution_row,
    to_execution_update,
)
from aetheris_server.history.state.answered import decide_answered
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.deadlines import (
    decide_due,
    new_deadline,
    next_deadline,
    next_inflight_deadline,
)
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.lifecycle.successor import (
    decide_continued,
    find_next_run_id,
)
from aetheris_server.history.state.machines.properties import is_changed
from aetheris_server.history.state.machines.workflow_task.ending import decide_flush
from aetheris_server.history.state.obligations import (
    new_obligations,
    obligations,
    owes,
    take_due_retries,
)
from aetheris_server.history.state.observe import observe, restore_inflight
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.history.state.snapshot import to_snapshot
from aetheris_server.history.times import from_timestamp
from aetheris_server.storage.execution_rows import (
    INSERT_EXECUTIONS,
    UPDATE_EXECUTION_NOTES,
    UPDATE_EXECUTIONS,
)
from aetheris_server.storage.row_changes import RowChanges

_TAIL_MAX_EVENTS = 512
_TAIL_MAX_BYTES = 512 * 1024
_INFLIGHT_BYTES = 512


class EventTail:
    """The newest events of a run, without gaps up to its next id; bounded in number and bytes."""

    __slots__ = ("_bytes", "_events", "_next_event_id")

    def __init__(self, next_event_id: int) -> None:
        self._events: deque[tuple[history_pb2.HistoryEvent, int]] = deque()
        self._bytes = 0
        self._next_event_id = next_event_id

    @property
    def byte_count(self) -> int:
        """What the events take, encoded."""
        return self._bytes

    def extend(self, events: list[history_pb2.HistoryEvent]) -> None:
        """Append events that follow without a gap."""
        for event in events:
            size = event.ByteSize()
            self._events.append((event, size))
            self._bytes += size
        self._next_event_id += len(events)
        while len(self._events) > _TAIL_MAX_EVENTS or (
            self._bytes > _TAIL_MAX_BYTES and len(self._events) > 1
        ):
            self._bytes -= self._events.popleft()[1]

    def try_slice(
        self, from_event_id: int, until_event_id: int
    ) -> list[history_pb2.HistoryEvent] | None:
        """Events with from_event_id <= id < until_event_id; None if some are no longer here."""
        if until_event_id <= from_event_id:
            return []
        first_event_id = self._next_event_id - len(self._events)
        if from_event_id < first_event_id or until_event_id > self._next_event_id:
            return None
        start = from_event_id - first_event_id
        if start == 0 and until_event_id == self._next_event_id:
            return [event for event, _ in self._events]
        stop = until_event_id - first_event_id
        return [self._events[index][0] for index in range(start, stop)]


@dataclass(slots=True)
class WaitingQuery:
    """A query that a client waits for; `answer` gets what the worker said."""

    query_id: str
    query: worker_service_pb2.WorkflowQuery
    answer: asyncio.Future[worker_service_pb2.WorkflowQueryResult]
    expire_time: datetime


@dataclass(slots=True)
class AdmittedUpdate:
    """An update that the run's code has not accepted.

    Attributes:
        waiter_count: Calls that wait for it.
        left_at: When one of them last ended, by the clock for intervals.
        rejection: Why it was not accepted; None while it waits, and once it is.
    """

    request: history_pb2.UpdateRequest
    admitted_time: datetime
    left_at: float
    waiter_count: int = 0
    rejection: failure_pb2.Failure | None = None


class LoadedRun(Aggregate):
    """One run in the cache of the host that has its shard.

    Attributes:
        tail: The newest events; those from `committed_event_id` on are not on disk yet.
        committed_event_id: The next event id, as far as the disk has it.
        repeats_id: The workflow id had a run before; known of a run that is being started, or that
            continues another.
        updates: Those that its code has not judged, by id, in the order in which they came.
    """

    __slots__ = (
        "_row_status",
        "_started_bytes",
        "committed_event_id",
        "inflight",
        "queries",
        "repeats_id",
        "state",
        "tail",
        "updates",
    )

    key: RunKey

    def __init__(self, shard_id: int, state: RunState) -> None:
        super().__init__(state.key, shard_id, state.start_time)
        self.state = state
        self.inflight = Inflight()
        self._started_bytes = state.started.ByteSize()
        self._row_status = state.status
        self.tail = EventTail(state.next_event_id)
        self.committed_event_id = state.next_event_id
        self.repeats_id = bool(state.started.continued_execution_run_id)
        self.queries: dict[str, WaitingQuery] = {}
        self.updates: dict[str, AdmittedUpdate] = {}

    @property
    def seq(self) -> int:
        return self.state.run_seq

    @property
    def hash(self) -> bytes:
        return self.state.hash

    @property
    def log_bytes(self) -> int:
        return self.state.history_bytes

    @property
    def state_bytes(self) -> int:
        return self.state.byte_count

    @property
    def close_time(self) -> datetime | None:
        event = self.state.close_event
        return from_timestamp(event.event_time) if event is not None else None

    @property
    def is_open(self) -> bool:
        return self.state.is_open

    @property
    def next_event_id(self) -> int:
        return self.state.next_event_id

    def apply(self, record: log_pb2.LogRecord, stored: bytes) -> None:
        apply(self.state, record, stored)
        self.tail.extend(list(record.events))

    def observe(self, record: log_pb2.LogRecord) -> None:
        observe(self.state, self.inflight, record)

    def to_snapshot(self) -> bytes:
        return to_snapshot(self.state)

    def next_deadline(self, now: datetime) -> datetime | None:
        return next_deadline(self.state, self.inflight, now)

    def new_deadline(self, record: log_pb2.LogRecord) -> datetime | None:
        return new_deadline(self.state, record)

    def next_inflight_deadline(self, at: float) -> float | None:
        return next_inflight_deadline(self.state, self.inflight, at)

    def decide_due(self, now: datetime, at: float) -> log_pb2.LogRecord | None:
        return decide_due(self.state, self.inflight, now, at)

    def owes(self) -> bool:
        return owes(self.state)

    def obligations(self, now: datetime) -> list[Obligation]:
        return obligations(self.state, self.inflight, now)

    def new_obligations(self, record: log_pb2.LogRecord, now: datetime) -> list[Obligation]:
        return new_obligations(self.state, self.inflight, record, now)

    def take_due(self, now: datetime) -> list[TaskRef]:
        return take_due_retries(self.state, self.inflight, now)

    def decide_answered(
        self, call: AggregateCall, outcome: CallOutcome, now: datetime
    ) -> log_pb2.LogRecord | None:
        return decide_answered(self.state, self.inflight, call, outcome, now)

    def begun_by(
        self, record: log_pb2.LogRecord
    ) -> Iterable[tuple[AggregateKey, log_pb2.LogRecord]]:
        event = self.state.close_event
        # One that has closed may take records all the same.
        if event is None or not record.events or record.events[-1].event_id != event.event_id:
            return ()
        return (decide_continued(self.state, event),) if find_next_run_id(event) else ()

    def changes_row(self) -> bool:
        return self.state.status != self._row_status or is_changed(self.state)

    def add_row(self, changes: RowChanges, owes: bool) -> None:
        row = to_execution_row(
            self.shard_id, self.state, self.wake_time, repeats_id=self.repeats_id, owes=owes
        )
        changes.add(INSERT_EXECUTIONS, row)

    def add_update(self, changes: RowChanges, owes: bool) -> None:
        update = to_execution_update(self.shard_id, self.state, self.wake_time, owes=owes)
        changes.add(UPDATE_EXECUTIONS, update)
        notes = to_execution_notes(self.shard_id, self.state)
        if notes is not None:
            changes.add(UPDATE_EXECUTION_NOTES, notes)
        self._row_status = self.state.status

    def project(self, record: log_pb2.LogRecord, changes: RowChanges) -> None:
        PROJECTIONS.project(self.shard_id, self.state, record, changes)

    @property
    def is_idle(self) -> bool:
        return self.inflight.is_idle

    @property
    def was_elsewhere(self) -> bool:
        return self.inflight.taken_at is not None

    def restore(self, now: datetime, at: float, taken_at: float | None) -> None:
        restore_inflight(self.state, self.inflight, now, at, taken_at)
        self._row_status = self.state.status

    def decide_restored(self, now: datetime) -> log_pb2.LogRecord | None:
        return decide_flush(self.state, self.inflight, now)

    def note_on_disk(self, next_event_id: int) -> None:
        self.committed_event_id = next_event_id

    @property
    def is_evictable(self) -> bool:
        return super().is_evictable and not self.queries

    def estimate_bytes(self) -> int:
        """Roughly what it takes in memory: its newest events, its state, its tasks in flight."""
        return (
            FIXED_BYTES
            + self.tail.byte_count
            + self._started_bytes
            + self.state.byte_count
            + _INFLIGHT_BYTES * len(self.inflight.activities)
        )

    def abandon(self) -> None:
        for waiting in self.queries.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(ShardNotOwnedError(self.shard_id))
                # Who asked may have gone; the error is then nobody's.
                waiting.answer.exception()
        super().abandon()
