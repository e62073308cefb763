"""Rows for storage's tests, with only what a test is about to be named."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from aetheris_server.ids import new_run_id
from aetheris_server.storage.aggregate_rows import (
    INSERT_AGGREGATES,
    UPDATE_AGGREGATES,
    AggregateRow,
    AggregateUpdate,
)
from aetheris_server.storage.commit import CommitBatch
from aetheris_server.storage.execution_rows import (
    INSERT_EXECUTIONS,
    UPDATE_EXECUTIONS,
    ExecutionRow,
    ExecutionUpdate,
)
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS, SnapshotRow

NAMESPACE_ID = "0192f3a0-0000-7000-8000-000000000001"
START_TIME = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUNNING, COMPLETED = 1, 2


def batch_of(
    log: Sequence[LogRow] = (),
    inserts: Iterable[ExecutionRow] = (),
    updates: Iterable[ExecutionUpdate] = (),
    snapshots: Iterable[SnapshotRow] = (),
    aggregate_inserts: Iterable[AggregateRow] = (),
    aggregate_updates: Iterable[AggregateUpdate] = (),
) -> CommitBatch:
    made = CommitBatch(log=[*log])
    for row in inserts:
        made.changes.add(INSERT_EXECUTIONS, row)
    for update in updates:
        made.changes.add(UPDATE_EXECUTIONS, update)
    for aggregate in aggregate_inserts:
        made.changes.add(INSERT_AGGREGATES, aggregate)
    for change in aggregate_updates:
        made.changes.add(UPDATE_AGGREGATES, change)
    for snapshot in snapshots:
        made.changes.add(PUT_SNAPSHOTS, snapshot)
    return made


def log_row(
    shard_id: int = 1,
    shard_seq: int = 1,
    run_id: str = "",
    run_seq: int = 1,
    first_event_id: int = 1,
    event_count: int = 1,
    record: bytes = b"record",
) -> LogRow:
    run_id = run_id or new_run_id()
    digest = sha256(run_id.encode() + record).digest()
    return LogRow(
        shard_id,
        shard_seq,
        NAMESPACE_ID,
        run_id,
        run_seq,
        first_event_id,
        event_count,
        record,
        digest,
    )


def execution_row(
    shard_id: int = 1,
    workflow_id: str = "order-1",
    run_id: str = "",
    start_time: datetime = START_TIME,
    **columns: object,
) -> ExecutionRow:
    run_id = run_id or new_run_id()
    row = ExecutionRow(
        shard_id=shard_id,
        namespace_id=NAMESPACE_ID,
        workflow_id=workflow_id,
        run_id=run_id,
        first_execution_run_id=run_id,
        start_request_id=f"start-{workflow_id}",
        workflow_type="Order",
        task_queue="orders",
        status=RUNNING,
        start_time=start_time,
        execution_time=start_time,
        history_length=3,
        history_bytes=500,
    )
    return replace(row, **columns)


def close_update(row: ExecutionRow, **columns: object) -> ExecutionUpdate:
    update = ExecutionUpdate(
        shard_id=row.shard_id,
        run_id=row.run_id,
        status=COMPLETED,
        close_time=row.start_time + timedelta(seconds=5),
        wake_time=None,
        history_length=11,
        history_bytes=2000,
        owes=False,
    )
    return replace(update, **columns)


def aggregate_row(
    shard_id: int = 1, name: str = "name", id_: str = "", **columns: object
) -> AggregateRow:
    """An open aggregate."""
    row = AggregateRow(
        shard_id=shard_id, kind="kind", namespace_id=NAMESPACE_ID, name=name, id=id_ or new_run_id()
    )
    return replace(row, **columns)
