"""Folds of runs' logs, saved so that loading a long run needs only what came after. `commit` writes
them.

A cache: any row may be deleted at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aetheris_server.storage.arrays import bytea_array, int4_array, int8_array, uuid_array
from aetheris_server.storage.database import Database
from aetheris_server.storage.row_changes import RowStatement
from aetheris_server.storage.uuids import is_uuid


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """The state of a run after its record `run_seq`, and the hash of its chain there."""

    shard_id: int
    run_id: str
    run_seq: int
    hash: bytes
    state: bytes


def _columns(rows: Sequence[SnapshotRow]) -> list[bytes]:
    return [
        int4_array([row.shard_id for row in rows]),
        uuid_array([row.run_id for row in rows]),
        int8_array([row.run_seq for row in rows]),
        bytea_array([row.hash for row in rows]),
        bytea_array([row.state for row in rows]),
    ]


PUT_SNAPSHOTS = RowStatement(
    """
INSERT INTO snapshots AS s (shard_id, run_id, run_seq, hash, state) SELECT * FROM unnest(
    $1::integer[], $2::uuid[], $3::bigint[], $4::bytea[], $5::bytea[]
) ON CONFLICT (shard_id, run_id) DO UPDATE
SET run_seq = excluded.run_seq, hash = excluded.hash, state = excluded.state
WHERE s.run_seq < excluded.run_seq""",
    bind=_columns,
    # ON CONFLICT cannot take a row twice in one statement.
    key=lambda snapshot: snapshot.run_id,
    weigh=lambda snapshot: len(snapshot.state),
)
"""New snapshots; one that is older than the run's stored one is passed over."""

_LOAD = """
SELECT s.shard_id, s.run_id::text, s.run_seq, s.hash, s.state
FROM unnest(%s::integer[], %s::uuid[]) AS w (shard_id, run_id)
JOIN snapshots s ON s.shard_id = w.shard_id AND s.run_id = w.run_id
"""

_DELETE = "DELETE FROM snapshots WHERE shard_id = %s AND run_id = %s AND run_seq = %s"


async def load_snapshots(db: Database, runs: Sequence[tuple[int, str]]) -> list[SnapshotRow]:
    """The snapshots of runs, given as (shard_id, run_id); those that have none are left out.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    known = [(shard_id, run_id) for shard_id, run_id in runs if is_uuid(run_id)]
    rows = await db.fetch(_LOAD, ([run[0] for run in known], [run[1] for run in known]))
    return [SnapshotRow(*row) for row in rows]


async def delete_snapshot(db: Database, snapshot: SnapshotRow) -> None:
    """Delete a snapshot; one that has taken its place meanwhile is kept.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    await db.fetch(_DELETE, (snapshot.shard_id, snapshot.run_id, snapshot.run_seq))
