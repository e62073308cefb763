"""Folds of runs' logs, saved so that loading a long run needs only what came after. `commit` writes
them.

A cache: any row may be deleted at any time.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aetheris_server.storage.database import Database
from aetheris_server.storage.uuids import is_uuid


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """The state of a run after its record `run_seq`, and the hash of its chain there."""

    shard_id: int
    run_id: str
    run_seq: int
    hash: bytes
    state: bytes


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
