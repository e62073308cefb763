"""An aggregate's row in `aggregates`, which is for those that are no runs: what it has, and the two
statements that write it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aetheris_server.storage.arrays import (
    bool_array,
    int4_array,
    text_array,
    timestamp_array,
    uuid_array,
)
from aetheris_server.storage.row_changes import RowStatement


@dataclass(frozen=True, slots=True)
class AggregateRow:
    """An aggregate.

    Attributes:
        name: With the namespace it says which shard.
        id: What its log rows call run_id.
        wake_time: The earliest deadline that must survive a crash; None is none.
        close_time: None while it is open.
        owes: See `ExecutionRow.owes`.
    """

    shard_id: int
    kind: str
    namespace_id: str
    name: str
    id: str
    wake_time: datetime | None = None
    close_time: datetime | None = None
    owes: bool = False


@dataclass(frozen=True, slots=True)
class AggregateUpdate:
    """What of an aggregate's row changes, with all these values as they are to be."""

    shard_id: int
    id: str
    wake_time: datetime | None
    close_time: datetime | None
    owes: bool


def _insert_columns(rows: Sequence[AggregateRow]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        text_array([row.kind for row in rows]),
        uuid_array([row.namespace_id for row in rows]),
        text_array([row.name for row in rows]),
        uuid_array([row.id for row in rows]),
        timestamp_array([row.wake_time for row in rows]),
        timestamp_array([row.close_time for row in rows]),
        bool_array([row.owes for row in rows]),
    ]


def _update_columns(rows: Sequence[AggregateUpdate]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.id for row in rows]),
        timestamp_array([row.wake_time for row in rows]),
        timestamp_array([row.close_time for row in rows]),
        bool_array([row.owes for row in rows]),
    ]


INSERT_AGGREGATES = RowStatement(
    """
INSERT INTO aggregates (shard_id, kind, namespace_id, name, id, wake_time, close_time, owes)
SELECT * FROM unnest(
    $1::integer[], $2::text[], $3::uuid[], $4::text[], $5::uuid[], $6::timestamptz[],
    $7::timestamptz[], $8::boolean[]
)""",
    bind=_insert_columns,
)
"""Aggregates that have just begun."""

UPDATE_AGGREGATES = RowStatement(
    """
UPDATE aggregates a SET wake_time = u.wake_time, close_time = u.close_time, owes = u.owes
FROM unnest($1::integer[], $2::uuid[], $3::timestamptz[], $4::timestamptz[], $5::boolean[])
    AS u (shard_id, id, wake_time, close_time, owes)
WHERE a.shard_id = u.shard_id AND a.id = u.id""",
    bind=_update_columns,
    # In the order in which `settle_shards` locks them, so that the two do not wait for each other.
    key=lambda update: update.id,
)
"""Aggregates whose rows are there, or are inserted by the same batch."""

AGGREGATE_STATEMENTS = (INSERT_AGGREGATES, UPDATE_AGGREGATES)
