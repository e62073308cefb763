"""One row per aggregate of a kind without a table of its own: an index of the log.

What a row has, and how it is written, is in `aggregate_rows`. Runs have theirs in `executions`;
`finding` looks into both.
"""

from collections.abc import Sequence

from aetheris_server.storage.aggregate_rows import AggregateRow
from aetheris_server.storage.database import Database
from aetheris_server.storage.uuids import is_uuid

_SEVERAL = """
SELECT a.shard_id, kind, namespace_id::text, name, a.id::text, wake_time, close_time, owes
FROM unnest(%s::integer[], %s::uuid[]) AS w (shard_id, id)
JOIN aggregates a ON a.shard_id = w.shard_id AND a.id = w.id
"""

_WEIGHTS = """
SELECT w.shard_id, w.id::text, (
    coalesce(octet_length(s.state), 0) + coalesce((
        SELECT sum(octet_length(l.record)) FROM log l
        WHERE l.shard_id = w.shard_id AND l.run_id = w.id AND l.run_seq > coalesce(s.run_seq, 0)
    ), 0)
)::bigint
FROM unnest(%s::integer[], %s::uuid[]) AS w (shard_id, id)
JOIN aggregates a ON a.shard_id = w.shard_id AND a.id = w.id
LEFT JOIN snapshots s ON s.shard_id = w.shard_id AND s.run_id = w.id
"""


async def load_aggregates(db: Database, ids: Sequence[tuple[int, str]]) -> list[AggregateRow]:
    """Several aggregates, given as (shard_id, id), in no order; those there are not are left out.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return [AggregateRow(*row) for row in await db.fetch(_SEVERAL, _columns_of(ids))]


async def weigh_aggregates(
    db: Database, ids: Sequence[tuple[int, str]]
) -> list[tuple[int, str, int]]:
    """What loading aggregates takes: the bytes of a snapshot and of what is behind it.

    Returns:
        (shard_id, id, byte_count), in no order; those there are not are left out.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_WEIGHTS, _columns_of(ids))
    return [(row[0], row[1], row[2]) for row in rows]


def _columns_of(ids: Sequence[tuple[int, str]]) -> tuple[list[int], list[str]]:
    known = [(shard_id, id_) for shard_id, id_ in ids if is_uuid(id_)]
    return [each[0] for each in known], [each[1] for each in known]
