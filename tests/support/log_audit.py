"""Reads what a server has written and holds it to the rules of the log."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.aggregates.records import EMPTY_HASH
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.obligations import owes as is_owing
from aetheris_server.history.state.run import RunKey, RunState

_ROWS = """
SELECT l.run_id::text, l.run_seq, l.first_event_id, l.event_count, l.record, l.hash,
    e.namespace_id::text, e.workflow_id, e.status, e.close_time IS NULL, e.owes
FROM log l LEFT JOIN executions e ON e.shard_id = l.shard_id AND e.run_id = l.run_id
WHERE l.run_id IS NOT NULL ORDER BY l.run_id, l.run_seq
"""

_FINISHES = {
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: "activity_task_completed_event_attributes",
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED: "activity_task_failed_event_attributes",
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: "activity_task_timed_out_event_attributes",
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED: "activity_task_cancelled_event_attributes",
}


@dataclass(slots=True)
class AuditedRun:
    """A run as its log has it.

    Attributes:
        state: The fold of its records.
    """

    run_id: str
    events: list[history_pb2.HistoryEvent]
    record_count: int
    state: RunState


def audit_log(dsn: str) -> dict[str, AuditedRun]:
    """Check the whole log, and return its runs by id.

    Per shard: numbers without gaps. Per run: a row in executions that says what the fold says,
    numbers and event ids without gaps, a hash chain over the stored bytes, one end per activity,
    one end of the run.
    """
    with psycopg.connect(dsn) as connection:
        numbers = connection.execute(
            "SELECT shard_id, shard_seq FROM log ORDER BY shard_id, shard_seq"
        ).fetchall()
        rows = connection.execute(_ROWS).fetchall()
    _check_numbers(numbers)
    by_run: dict[str, list[tuple[object, ...]]] = {}
    for row in rows:
        by_run.setdefault(row[0], []).append(row)
    return {run_id: _audit_run(run_id, of_run) for run_id, of_run in by_run.items()}


def _check_numbers(numbers: Sequence[tuple[int, int]]) -> None:
    last: dict[int, int] = {}
    for shard_id, seq in numbers:
        assert seq == last.get(shard_id, 0) + 1, f"shard {shard_id}: {seq} after {last}"
        last[shard_id] = seq


def _audit_run(run_id: str, rows: Sequence[tuple[object, ...]]) -> AuditedRun:
    events: list[history_pb2.HistoryEvent] = []
    state: RunState | None = None
    chain = EMPTY_HASH
    for number, row in enumerate(rows, start=1):
        _, run_seq, first_event_id, event_count, stored, digest, *_ = row
        assert isinstance(stored, bytes)
        assert run_seq == number, f"run {run_id}: record {run_seq} at place {number}"
        record = log_pb2.LogRecord.FromString(stored)
        if state is None:
            key = RunKey(str(row[6]), str(row[7]), run_id)
            state = new_state(key, record)
        assert first_event_id == state.next_event_id
        assert event_count == len(record.events)
        assert [event.event_id for event in record.events] == [
            state.next_event_id + index for index in range(len(record.events))
        ]
        apply(state, record, stored)
        chain = state.hash
        assert chain == digest, f"run {run_id}: the hash chain breaks at record {run_seq}"
        events += record.events
    assert state is not None
    _, _, _, _, _, _, _, _, status, is_open, owes = rows[-1]
    assert status == state.status, f"run {run_id}: executions says {status}, the log {state.status}"
    assert is_open == state.is_open
    # A flag too many does no harm; one too few, of what has closed, would lose what it owes.
    assert state.is_open or owes == is_owing(state)
    _check_ends(run_id, events)
    return AuditedRun(run_id, events, len(rows), state)


def _check_ends(run_id: str, events: Sequence[history_pb2.HistoryEvent]) -> None:
    ends = Counter(
        getattr(event, _FINISHES[event.event_type]).scheduled_event_id
        for event in events
        if event.event_type in _FINISHES
    )
    assert all(count == 1 for count in ends.values()), f"run {run_id}: activities end {ends}"
    timers = Counter(
        event.timer_fired_event_attributes.started_event_id
        for event in events
        if event.event_type == history_pb2.EVENT_TYPE_TIMER_FIRED
    )
    assert all(count == 1 for count in timers.values()), f"run {run_id}: timers fire {timers}"
    closes = [
        event
        for event in events
        if event.event_type
        in (
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
        )
    ]
    assert len(closes) <= 1, f"run {run_id} ends {len(closes)} times"
    assert not closes or closes[0] is events[-1], f"run {run_id} goes on after its end"
