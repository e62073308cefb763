"""A run's row in `executions`: what it has, and the two statements that write it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

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
from aetheris_server.storage.index_table import IndexTable
from aetheris_server.storage.row_changes import RowStatement


@dataclass(frozen=True, slots=True)
class ExecutionRow:
    """A run.

    Attributes:
        status: A `WorkflowExecutionStatus`; `close_time` is None exactly where it is an open one.
        wake_time: The earliest deadline that must survive a crash; None is none.
        history_length: Events.
        memo: Bytes of the owner's choice.
        search_attributes: A JSON object, in UTF-8.
        parent_namespace_id: Empty, as the two after it, where the run has no parent.
        repeats_id: The workflow id had a run before.
        owes: The run owes something that the log behind the shard's watermark does not name.
    """

    shard_id: int
    namespace_id: str
    workflow_id: str
    run_id: str
    first_execution_run_id: str
    start_request_id: str
    workflow_type: str
    task_queue: str
    status: int
    start_time: datetime
    execution_time: datetime
    close_time: datetime | None = None
    history_length: int = 0
    history_bytes: int = 0
    memo: bytes | None = None
    search_attributes: bytes | None = None
    parent_namespace_id: str = ""
    parent_workflow_id: str = ""
    parent_run_id: str = ""
    wake_time: datetime | None = None
    owes: bool = False
    repeats_id: bool = False


@dataclass(frozen=True, slots=True)
class ExecutionUpdate:
    """What of a run's row changes, with all these values as they are to be."""

    shard_id: int
    run_id: str
    status: int
    close_time: datetime | None
    wake_time: datetime | None
    history_length: int
    history_bytes: int
    owes: bool


@dataclass(frozen=True, slots=True)
class ExecutionNotes:
    """The notes in a run's row, as they are to be; the columns as in `ExecutionRow`."""

    shard_id: int
    run_id: str
    memo: bytes | None
    search_attributes: bytes | None


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
        bool_array([row.owes for row in rows]),
        bool_array([row.repeats_id for row in rows]),
    ]


def _weigh_notes(row: ExecutionRow | ExecutionNotes) -> int:
    return len(row.memo or b"") + len(row.search_attributes or b"")


def _update_columns(rows: Sequence[ExecutionUpdate]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        int2_array([row.status for row in rows]),
        timestamp_array([row.close_time for row in rows]),
        timestamp_array([row.wake_time for row in rows]),
        int8_array([row.history_length for row in rows]),
        int8_array([row.history_bytes for row in rows]),
        bool_array([row.owes for row in rows]),
    ]


def _notes_columns(rows: Sequence[ExecutionNotes]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        bytea_array([row.memo for row in rows]),
        jsonb_array([row.search_attributes for row in rows]),
    ]


INSERT_EXECUTIONS = RowStatement(
    """
INSERT INTO executions (
    shard_id, namespace_id, workflow_id, run_id, first_execution_run_id, start_request_id,
    workflow_type, task_queue, status, start_time, execution_time, close_time, history_length,
    history_bytes, memo, search_attributes, parent_namespace_id, parent_workflow_id, parent_run_id,
    wake_time, owes, repeats_id
) SELECT * FROM unnest(
    $1::integer[], $2::uuid[], $3::text[], $4::uuid[], $5::uuid[], $6::text[], $7::text[],
    $8::text[], $9::smallint[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[],
    $13::bigint[], $14::bigint[], $15::bytea[], $16::jsonb[], $17::uuid[], $18::text[], $19::uuid[],
    $20::timestamptz[], $21::boolean[], $22::boolean[]
)""",
    bind=_insert_columns,
    weigh=_weigh_notes,
)
"""Runs that have just been started."""

UPDATE_EXECUTIONS = RowStatement(
    """
UPDATE executions e SET
    status = u.status, close_time = u.close_time, wake_time = u.wake_time,
    history_length = u.history_length, history_bytes = u.history_bytes, owes = u.owes
FROM unnest(
    $1::integer[], $2::uuid[], $3::smallint[], $4::timestamptz[], $5::timestamptz[], $6::bigint[],
    $7::bigint[], $8::boolean[]
) AS u (
    shard_id, run_id, status, close_time, wake_time, history_length, history_bytes, owes
) WHERE e.shard_id = u.shard_id AND e.run_id = u.run_id""",
    bind=_update_columns,
    # In the order in which `settle_shards` locks them, so that the two do not wait for each other.
    key=lambda update: update.run_id,
)
"""Runs whose rows are there, or are inserted by the same batch."""

UPDATE_EXECUTION_NOTES = RowStatement(
    """
UPDATE executions e SET memo = u.memo, search_attributes = u.search_attributes
FROM unnest($1::integer[], $2::uuid[], $3::bytea[], $4::jsonb[])
    AS u (shard_id, run_id, memo, search_attributes)
WHERE e.shard_id = u.shard_id AND e.run_id = u.run_id""",
    bind=_notes_columns,
    key=lambda notes: notes.run_id,
    weigh=_weigh_notes,
)
"""Notes that have changed, of runs that the same batch updates before: those rows are locked, so
that nobody waits for another here.
"""

EXECUTION_STATEMENTS = (INSERT_EXECUTIONS, UPDATE_EXECUTIONS, UPDATE_EXECUTION_NOTES)

EXECUTIONS = IndexTable(
    name="executions",
    statements=EXECUTION_STATEMENTS,
    lags={
        # As of when the row was last written.
        "history_length": "r.close_time IS NULL AND l.history_length <= r.history_length",
        "history_bytes": "r.close_time IS NULL AND l.history_bytes <= r.history_bytes",
        # Never later than the truth: a run that is woken for nothing comes to no harm.
        "wake_time": "r.wake_time IS NULL OR l.wake_time <= r.wake_time",
        # A flag too many costs a look at the run; instead of one, the log behind the watermark may
        # name it.
        "owes": """
            l.owes OR EXISTS (
                SELECT FROM shards s JOIN log g ON g.shard_id = s.shard_id
                WHERE s.shard_id = l.shard_id AND g.run_id = l.run_id AND g.shard_seq > s.watermark
            )
        """,
        # An entry too many in the index of repeats, as all runs from before it have.
        "repeats_id": "l.repeats_id",
    },
    ahead="""
        l.history_length > r.history_length OR (l.close_time IS NOT NULL AND r.close_time IS NULL)
    """,
    complete="""
        UPDATE {made} r SET repeats_id = true
        WHERE EXISTS (
            SELECT FROM {live} o
            WHERE o.shard_id = r.shard_id AND o.namespace_id = r.namespace_id
                AND o.workflow_id = r.workflow_id AND o.start_time < r.start_time
        ) OR EXISTS (
            SELECT FROM {made} o
            WHERE o.shard_id = r.shard_id AND o.namespace_id = r.namespace_id
                AND o.workflow_id = r.workflow_id AND o.start_time < r.start_time
        )
    """,
)
"""Runs. What users see of them lags only in the length of those that are open."""
