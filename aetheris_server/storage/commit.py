"""The write path: batches of log rows, and the index rows that follow from them, as transactions.

What keeps two hosts from writing one shard is the log's primary key: a row that another host wrote
under the same number makes the whole batch fail. A record's place in its run is unique too, so that
memory that is not what the log has cannot write on top of it. A batch may be sent again after its
connection was lost: it either collides with its own rows, which shows that it was committed, or is
committed now.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg

from aetheris_server.errors import ShardLostError, UnstorableError
from aetheris_server.storage.arrays import (
    bool_array,
    bytea_array,
    int2_array,
    int4_array,
    int8_array,
    jsonb_array,
    text_array,
    timestamp_array,
    uuid_array,
)
from aetheris_server.storage.database import Database, is_connection_loss, storage_errors
from aetheris_server.storage.executions import ExecutionRow, ExecutionUpdate
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.pipeline import PipelineConnection, Statement
from aetheris_server.storage.snapshots import SnapshotRow
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

# So that a restart of Postgres is a pause, not a failure.
_RETRY_TIMEOUT = 5.0
_RETRY_INTERVAL = 0.05
_RETRY_MAX_INTERVAL = 0.5

_INSERT_LOG, _INSERT_EXECUTIONS, _UPDATE_EXECUTIONS, _PUT_SNAPSHOTS = b"1", b"2", b"3", b"4"

_STATEMENTS: dict[bytes, LiteralString] = {
    _INSERT_LOG: """
INSERT INTO log (
    shard_id, shard_seq, namespace_id, run_id, run_seq, first_event_id, event_count, record, hash
) SELECT * FROM unnest(
    $1::integer[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::integer[],
    $8::bytea[], $9::bytea[]
)""",
    _INSERT_EXECUTIONS: """
INSERT INTO executions (
    shard_id, namespace_id, workflow_id, run_id, first_execution_run_id, start_request_id,
    workflow_type, task_queue, status, start_time, execution_time, close_time, history_length,
    history_bytes, memo, search_attributes, parent_namespace_id, parent_workflow_id, parent_run_id,
    wake_time, owes_tasks, repeats_id
) SELECT * FROM unnest(
    $1::integer[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::text[],
    $8::text[], $9::smallint[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],
    $13::bigint[], $14::bigint[], $15::bytea[], $16::jsonb[], $17::uuid[], $18::text[], $19::uuid[],
    $20::timestamptz[], $21::boolean[], $22::boolean[]
)""",
    _UPDATE_EXECUTIONS: """
UPDATE executions e SET
    status = u.status, close_time = u.close_time, wake_time = u.wake_time,
    history_length = u.history_length, history_bytes = u.history_bytes, owes_tasks = u.owes_tasks
FROM unnest(
    $1::integer[], $2::uuid[], $3::smallint[], $4::timestamptz[], $5::timestamptz[], $6::bigint[],
    $7::bigint[], $8::boolean[]
) AS u (
    shard_id, run_id, status, close_time, wake_time, history_length, history_bytes, owes_tasks
) WHERE e.shard_id = u.shard_id AND e.run_id = u.run_id""",
    _PUT_SNAPSHOTS: """
INSERT INTO snapshots AS s (shard_id, run_id, run_seq, hash, state) SELECT * FROM unnest(
    $1::integer[], $2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[]
) ON CONFLICT (shard_id, run_id) DO UPDATE
SET run_seq = excluded.run_seq, hash = excluded.hash, state = excluded.state
WHERE s.run_seq < excluded.run_seq""",
}

_FIND_ROWS = """
SELECT l.shard_id, l.shard_seq, l.hash
FROM unnest(%s::integer[], %s::bigint[]) AS w (shard_id, shard_seq)
JOIN log l ON l.shard_id = w.shard_id AND l.shard_seq = w.shard_seq
"""

_FIND_RECORDS = """
SELECT l.shard_id, l.run_id::text, l.run_seq
FROM unnest(%s::integer[], %s::uuid[], %s::bigint[]) AS w (shard_id, run_id, run_seq)
JOIN log l ON l.shard_id = w.shard_id AND l.run_id = w.run_id AND l.run_seq = w.run_seq
"""


@dataclass(frozen=True, slots=True)
class CommitBatch:
    """What is written together.

    A run may be inserted and updated in one batch; of several updates or snapshots the last holds.
    """

    log: list[LogRow] = field(default_factory=list[LogRow])
    inserts: list[ExecutionRow] = field(default_factory=list[ExecutionRow])
    updates: list[ExecutionUpdate] = field(default_factory=list[ExecutionUpdate])
    snapshots: list[SnapshotRow] = field(default_factory=list[SnapshotRow])


class LogWriter:
    """Writes batches, one at a time, over a connection of its own. A context manager.

    Attributes:
        commit_count: Batches committed.
        retry_count: Batches sent again because the connection was lost or a deadlock was broken.
        log_row_count: Log rows committed.
        insert_count: Executions inserted.
        update_count: Executions updated.
        snapshot_count: Snapshots written.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: PipelineConnection | None = None
        self._turn = asyncio.Lock()
        self.commit_count = 0
        self.retry_count = 0
        self.log_row_count = 0
        self.insert_count = 0
        self.update_count = 0
        self.snapshot_count = 0

    async def commit(self, batch: CommitBatch) -> None:
        """Write a batch, all of it or nothing, in one transaction and one round trip.

        Raises:
            ShardLostError: Another host has written to these shards, or the log has other records
                of runs in them; nothing was written.
            UnstorableError: Something in it is refused; nothing was written.
            StorageUnavailableError: The batch may or may not have been written, or will be in a
                moment; the log tells.
        """
        try:
            statements = _bind(batch)
        except Exception as error:
            # Whatever it is, it is one row's fault, and the others can be written without it.
            raise UnstorableError(f"a value cannot be sent to postgres: {error}") from error
        async with self._turn:
            with storage_errors():
                async with asyncio.timeout(self._db.timeout):
                    await self._commit(batch, statements)
        self.commit_count += 1
        self.log_row_count += len(batch.log)
        self.insert_count += len(batch.inserts)
        self.update_count += len(batch.updates)
        self.snapshot_count += len(batch.snapshots)

    async def close(self) -> None:
        """Close the connection once the batch in flight is done. Again is harmless."""
        async with self._turn:
            if self._connection is not None:
                self._connection.close()

    async def _commit(self, batch: CommitBatch, statements: Sequence[Statement]) -> None:
        interval, retries_end = _RETRY_INTERVAL, asyncio.get_running_loop().time() + _RETRY_TIMEOUT
        while True:
            try:
                await self._send(statements)
            except psycopg.errors.UniqueViolation:
                if not await self._is_committed(batch.log):
                    await self._check_runs(batch.log)
                    raise
            except psycopg.OperationalError as error:
                if asyncio.get_running_loop().time() > retries_end or not _can_retry(error):
                    raise
                self.retry_count += 1
                await asyncio.sleep(interval)
                interval = min(2 * interval, _RETRY_MAX_INTERVAL)
                continue
            return

    async def _send(self, statements: Sequence[Statement]) -> None:
        if self._connection is None or self._connection.is_closed:
            self._connection = await self._db.connect_pipeline(_STATEMENTS)
        await self._connection.run(statements)

    async def _is_committed(self, rows: Sequence[LogRow]) -> bool:
        """Whether a batch collided with nothing but its own rows; False if not with the log at all.

        Raises:
            ShardLostError: It collided with rows that another owner of the shard has written.
        """
        keys = ([row.shard_id for row in rows], [row.shard_seq for row in rows])
        found = {
            (shard_id, seq): row for shard_id, seq, row in await self._db.fetch(_FIND_ROWS, keys)
        }
        if not found:
            return False
        if all(found.get((row.shard_id, row.shard_seq)) == row.hash for row in rows):
            return True
        raise ShardLostError(frozenset(shard_id for shard_id, _ in found))

    async def _check_runs(self, rows: Sequence[LogRow]) -> None:
        """Check that the log does not have the records already, under other numbers.

        Raises:
            ShardLostError: It has: what is in memory of these shards is not what is on disk.
        """
        of_runs = [row for row in rows if row.run_id]
        keys = (
            [row.shard_id for row in of_runs],
            [row.run_id for row in of_runs],
            [row.run_seq for row in of_runs],
        )
        found = await self._db.fetch(_FIND_RECORDS, keys)
        if found:
            for shard_id, run_id, run_seq in found:
                _log.error(
                    "the log has another record in this place of a run",
                    shard_id=shard_id,
                    run_id=run_id,
                    run_seq=run_seq,
                )
            raise ShardLostError(frozenset(shard_id for shard_id, _, _ in found))


def _can_retry(error: psycopg.OperationalError) -> bool:
    # Class 40: the server undid the batch to break a deadlock or a conflict.
    return is_connection_loss(error) or (error.sqlstate or "").startswith("40")


def _bind(batch: CommitBatch) -> list[Statement]:
    statements: list[Statement] = []
    if batch.log:
        statements.append((_INSERT_LOG, _log_columns(batch.log)))
    if batch.inserts:
        statements.append((_INSERT_EXECUTIONS, _insert_columns(batch.inserts)))
    if batch.updates:
        statements.append((_UPDATE_EXECUTIONS, _update_columns(batch.updates)))
    if batch.snapshots:
        statements.append((_PUT_SNAPSHOTS, _snapshot_columns(batch.snapshots)))
    return statements


def _log_columns(rows: Sequence[LogRow]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        int8_array([row.shard_seq for row in rows]),
        uuid_array([row.namespace_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        int8_array([row.run_seq for row in rows]),
        int8_array([row.first_event_id for row in rows]),
        int4_array([row.event_count for row in rows]),
        bytea_array([row.record for row in rows]),
        bytea_array([row.hash for row in rows]),
    ]


def _insert_columns(rows: Sequence[ExecutionRow]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.namespace_id for row in rows]),
        text_array([row.workflow_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        uuid_array([row.first_execution_run_id for row in rows]),
        text_array([row.start_request_id for row in rows]),
        text_array([row.workflow_type for row in rows]),
        text_array([row.task_queue for row in rows]),
        int2_array([row.status for row in rows]),
        timestamp_array([row.start_time for row in rows]),
        timestamp_array([row.execution_time for row in rows]),
        timestamp_array([row.close_time for row in rows]),
        int8_array([row.history_length for row in rows]),
        int8_array([row.history_bytes for row in rows]),
        bytea_array([row.memo for row in rows]),
        jsonb_array([row.search_attributes for row in rows]),
        uuid_array([row.parent_namespace_id for row in rows]),
        text_array([row.parent_workflow_id or None for row in rows]),
        uuid_array([row.parent_run_id for row in rows]),
        timestamp_array([row.wake_time for row in rows]),
        bool_array([row.owes_tasks for row in rows]),
        bool_array([row.repeats_id for row in rows]),
    ]


def _update_columns(updates: Sequence[ExecutionUpdate]) -> list[bytes]:
    # In the order in which settle_shards locks them, so that the two do not wait for each other.
    last_by_run = {update.run_id: update for update in updates}
    rows = [last_by_run[run_id] for run_id in sorted(last_by_run)]
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        int2_array([row.status for row in rows]),
        timestamp_array([row.close_time for row in rows]),
        timestamp_array([row.wake_time for row in rows]),
        int8_array([row.history_length for row in rows]),
        int8_array([row.history_bytes for row in rows]),
        bool_array([row.owes_tasks for row in rows]),
    ]


def _snapshot_columns(snapshots: Sequence[SnapshotRow]) -> list[bytes]:
    # ON CONFLICT cannot take a row twice in one statement.
    rows = list({row.run_id: row for row in snapshots}.values())
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        int8_array([row.run_seq for row in rows]),
        bytea_array([row.hash for row in rows]),
        bytea_array([row.state for row in rows]),
    ]
