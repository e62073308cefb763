"""What finds aggregates of every kind: those that are due, owe something, or are named by the log.

Runs are found by their rows in `executions`, all others by theirs in `aggregates`. Where there are
none of those, a look at the second table is one at an empty index.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

from aetheris_server.storage.database import Database, Row

Found = tuple[int, str, str, str, str]
"""(shard_id, kind, namespace_id, name, id)."""

_DUE = """
(
    SELECT shard_id, 'run' AS kind, namespace_id::text, workflow_id AS name, run_id AS id, wake_time
    FROM executions
    WHERE shard_id = ANY (%(shard_ids)s) AND wake_time < %(before)s
        AND (wake_time, run_id) > (
            coalesce(%(after_time)s::timestamptz, '-infinity'),
            coalesce(%(after_id)s::uuid, '00000000-0000-0000-0000-000000000000')
        )
    ORDER BY wake_time, run_id LIMIT %(limit)s
) UNION ALL (
    SELECT shard_id, kind, namespace_id::text, name, id, wake_time
    FROM aggregates
    WHERE shard_id = ANY (%(shard_ids)s) AND wake_time < %(before)s
        AND (wake_time, id) > (
            coalesce(%(after_time)s::timestamptz, '-infinity'),
            coalesce(%(after_id)s::uuid, '00000000-0000-0000-0000-000000000000')
        )
    ORDER BY wake_time, id LIMIT %(limit)s
) ORDER BY wake_time, id LIMIT %(limit)s
"""

_OWING = """
SELECT shard_id, 'run', namespace_id::text, workflow_id, run_id::text FROM executions
WHERE shard_id = ANY (%(shard_ids)s) AND owes
UNION ALL
SELECT shard_id, kind, namespace_id::text, name, id::text FROM aggregates
WHERE shard_id = ANY (%(shard_ids)s) AND owes
"""

# One that has closed and owes something is flagged: its row is written with each of its records.
_OPEN_SINCE = """
WITH named AS MATERIALIZED (
    SELECT DISTINCT l.shard_id, l.run_id
    FROM unnest(%(shard_ids)s::integer[], %(shard_seqs)s::bigint[]) AS w (shard_id, shard_seq)
    JOIN log l ON l.shard_id = w.shard_id AND l.shard_seq > w.shard_seq
    WHERE l.run_id IS NOT NULL
)
SELECT e.shard_id, 'run', e.namespace_id::text, e.workflow_id, e.run_id::text
FROM named JOIN executions e ON e.shard_id = named.shard_id AND e.run_id = named.run_id
WHERE e.close_time IS NULL
UNION ALL
SELECT a.shard_id, a.kind, a.namespace_id::text, a.name, a.id::text
FROM named JOIN aggregates a ON a.shard_id = named.shard_id AND a.id = named.run_id
WHERE a.close_time IS NULL
"""


async def load_due(
    db: Database,
    shard_ids: Sequence[int],
    before: datetime,
    limit: int,
    after: tuple[datetime, str] | None = None,
) -> list[tuple[Found, datetime]]:
    """The aggregates of shards that are to be woken before a time, the earliest `limit`.

    Args:
        db: Where to look.
        shard_ids: Whose aggregates.
        before: Exclusive.
        limit: At most so many.
        after: (wake_time, id) of the last one of the page before; None is the first page.

    Returns:
        Each with its wake_time, earliest first.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    after_time, after_id = after or (None, None)
    parameters = {
        "shard_ids": list(shard_ids),
        "before": before,
        "after_time": after_time,
        "after_id": after_id,
        "limit": limit,
    }
    rows = await db.fetch(_DUE, parameters)
    return [((row[0], row[1], row[2], row[3], str(row[4])), row[5]) for row in rows]


async def load_owing(db: Database, shard_ids: Sequence[int]) -> list[Found]:
    """The aggregates of shards that are flagged by `owes`, in no order.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_OWING, {"shard_ids": list(shard_ids)})
    return [_to_found(row) for row in rows]


async def load_open_since(db: Database, shard_seq_by_shard: Mapping[int, int]) -> list[Found]:
    """The open aggregates that the log names behind each shard's given number, each once, in no
    order.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    parameters = {
        "shard_ids": list(shard_seq_by_shard.keys()),
        "shard_seqs": list(shard_seq_by_shard.values()),
    }
    return [_to_found(row) for row in await db.fetch(_OPEN_SINCE, parameters)]


def _to_found(row: Row) -> Found:
    return (row[0], row[1], row[2], row[3], row[4])
