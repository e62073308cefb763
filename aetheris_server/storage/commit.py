"""The write path: batches of log rows, and the rows that are written beside them, as transactions.

What keeps two hosts from writing one shard is the log's primary key: a row that another host wrote
under the same number makes the whole batch fail. A record's place in its run is unique too, so that
memory that is not what the log has cannot write on top of it. A batch may be sent again after its
connection was lost: it either collides with its own rows, which shows that it was committed, or is
committed now.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg

from aetheris_server.errors import ShardLostError, UnstorableError
from aetheris_server.storage.arrays import bytea_array, int4_array, int8_array, uuid_array
from aetheris_server.storage.database import Database, is_connection_loss, storage_errors
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.pipeline import PipelineConnection, Statement
from aetheris_server.storage.row_changes import RowChanges, RowStatement
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

# So that a restart of Postgres is a pause, not a failure.
_RETRY_TIMEOUT = 5.0
_RETRY_INTERVAL = 0.05
_RETRY_MAX_INTERVAL = 0.5

# Its name as a prepared statement; the others are named by their places.
_LOG = b"log"

_INSERT_LOG: LiteralString = """
INSERT INTO log (
    shard_id, shard_seq, namespace_id, run_id, run_seq, first_event_id, event_count, record, hash
) SELECT * FROM unnest(
    $1::integer[], $2::bigint[], $3::uuid[], $4::uuid[], $5::bigint[], $6::bigint[], $7::integer[],
    $8::bytea[], $9::bytea[]
)"""

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
    """What is written together. A row may be inserted and updated in one batch."""

    log: list[LogRow] = field(default_factory=list[LogRow])
    changes: RowChanges = field(default_factory=RowChanges)


class LogWriter:
    """Writes batches, one at a time, over a connection of its own. A context manager.

    Attributes:
        commit_count: Batches committed.
        retry_count: Batches sent again because the connection was lost or a deadlock was broken.
        log_row_count: Log rows committed.
        row_counts: Rows committed beside the log, by statement; also those that others replaced.
    """

    def __init__(self, db: Database, statements: Sequence[RowStatement[Any]]) -> None:
        """Args:
        db: Where the log is.
        statements: Of the tables beside the log, in the order in which a batch runs them: an
            insert before the updates of its table. Snapshots come last, and are always known.
        """
        self._db = db
        self._places: dict[RowStatement[Any], int] = {
            statement: place for place, statement in enumerate((*statements, PUT_SNAPSHOTS))
        }
        self._connection: PipelineConnection | None = None
        self._turn = asyncio.Lock()
        self.commit_count = 0
        self.retry_count = 0
        self.log_row_count = 0
        self.row_counts = Counter[RowStatement[Any]]()

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
            statements = self._bind(batch)
        except Exception as error:
            # Whatever it is, it is one row's fault, and the others can be written without it.
            raise UnstorableError(f"a value cannot be sent to postgres: {error}") from error
        async with self._turn:
            with storage_errors():
                async with asyncio.timeout(self._db.timeout):
                    await self._commit(batch, statements)
        self.commit_count += 1
        self.log_row_count += len(batch.log)
        for statement, rows in batch.changes.items():
            self.row_counts[statement] += len(rows)

    async def close(self) -> None:
        """Close the connection once the batch in flight is done. Again is harmless."""
        async with self._turn:
            if self._connection is not None:
                self._connection.close()

    def _bind(self, batch: CommitBatch) -> list[Statement]:
        statements: list[Statement] = []
        if batch.log:
            statements.append((_LOG, _log_columns(batch.log)))
        for statement in sorted(batch.changes.statements, key=self._places.__getitem__):
            columns = statement.columns_of(batch.changes.of(statement))
            statements.append((_name(self._places[statement]), columns))
        return statements

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
            queries: dict[bytes, LiteralString] = {_LOG: _INSERT_LOG}
            for statement, place in self._places.items():
                queries[_name(place)] = statement.sql
            self._connection = await self._db.connect_pipeline(queries)
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


def _name(place: int) -> bytes:
    return b"%d" % place


def _can_retry(error: psycopg.OperationalError) -> bool:
    # Class 40: the server undid the batch to break a deadlock or a conflict.
    return is_connection_loss(error) or (error.sqlstate or "").startswith("40")


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
