"""Which host serves which shard, for as long as its lease lasts (`hosts`).

That is for liveness only. Taking a shard appends a note to its log; with that an owner from before,
which may still live, can commit nothing more.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aetheris_server.config import ConfigError
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.storage.database import Connection, Database, Row

# Each lost race means that the owner from before committed once more within a round trip.
_NOTE_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class ShardRow:
    """A shard's row. `host_id` None is free, and so is one whose host has no row in `hosts`."""

    shard_id: int
    host_id: str | None
    range_id: int
    watermark: int


@dataclass(frozen=True, slots=True)
class AcquiredShard:
    """A shard that is now ours.

    Attributes:
        range_id: Greater than that of every owner before.
        next_shard_seq: Where the next log row goes.
        watermark: All that the log up to here asks to dispatch has been, or is marked by
            `owes`.
    """

    shard_id: int
    range_id: int
    next_shard_seq: int
    watermark: int


@dataclass(frozen=True, slots=True)
class WakeRewrite:
    """A wake_time that is to be replaced if it is still `old_time`."""

    id: str
    old_time: datetime
    new_time: datetime | None


@dataclass(frozen=True, slots=True)
class ShardSettlement:
    """What its owner says of a shard.

    Attributes:
        watermark: The new one; never falls.
        owes_set: Ids to be marked by `owes` before the watermark passes the records by which they
            owe something.
        owes_cleared: Ids of those that owe nothing any more.
        wake_rewrites: Wake-ups that have come to nothing.
        in_aggregates: Those of all these that have their rows in `aggregates`.
    """

    shard_id: int
    range_id: int
    watermark: int
    owes_set: Collection[str] = ()
    owes_cleared: Collection[str] = ()
    wake_rewrites: Collection[WakeRewrite] = ()
    in_aggregates: Collection[str] = ()


MakeNote = Callable[[int, int], tuple[bytes, bytes]]
"""From shard_id and range_id, the record that says so and its hash."""

_CREATE_CLUSTER = (
    "INSERT INTO cluster (shard_count) VALUES (%s) ON CONFLICT (cluster_id) DO NOTHING"
)

_CREATE_SHARDS = """
INSERT INTO shards (shard_id) SELECT * FROM generate_series(0, %s::integer - 1)
ON CONFLICT (shard_id) DO NOTHING
"""

_LOAD = "SELECT shard_id, host_id, range_id, watermark FROM shards ORDER BY shard_id"

_TAKE = """
WITH free AS (
    SELECT shard_id FROM shards o
    WHERE shard_id = ANY (%(shard_ids)s)
        AND (host_id IS NULL OR host_id = %(host_id)s OR NOT EXISTS (
            SELECT FROM hosts h WHERE h.host_id = o.host_id
        ))
    ORDER BY shard_id FOR UPDATE
)
UPDATE shards s SET host_id = %(host_id)s, range_id = s.range_id + 1
FROM free WHERE s.shard_id = free.shard_id
RETURNING s.shard_id, s.range_id, s.watermark
"""

_TAILS = """
SELECT w.shard_id, coalesce((
    SELECT l.shard_seq FROM log l WHERE l.shard_id = w.shard_id ORDER BY l.shard_seq DESC LIMIT 1
), 0)
FROM unnest(%s::integer[]) AS w (shard_id)
"""

# Waits for a batch in flight that has the same numbers, and inserts nothing where that is
# committed.
_NOTE = """
INSERT INTO log (shard_id, shard_seq, run_seq, first_event_id, event_count, record, hash)
SELECT shard_id, shard_seq, 0, 0, 0, record, hash
FROM unnest(%s::integer[], %s::bigint[], %s::bytea[], %s::bytea[])
    AS n (shard_id, shard_seq, record, hash)
ON CONFLICT (shard_id, shard_seq) DO NOTHING
RETURNING shard_id, shard_seq
"""

_SETTLE = """
UPDATE shards s SET watermark = greatest(s.watermark, w.watermark)
FROM unnest(%s::integer[], %s::bigint[], %s::bigint[]) AS w (shard_id, range_id, watermark)
WHERE s.shard_id = w.shard_id AND s.range_id = w.range_id AND s.host_id = %s
RETURNING s.shard_id
"""

# Locks rows in the order in which LogWriter does, so that the two do not wait for each other. What
# the row of a closed one says is what its last commit said, which may have come after the plan.
_UPDATE_RUNS = """
WITH locked AS (
    SELECT e.shard_id, e.run_id, w.owes, w.old_wake_time, w.new_wake_time
    FROM unnest(%s::integer[], %s::uuid[], %s::boolean[], %s::timestamptz[], %s::timestamptz[])
        AS w (shard_id, run_id, owes, old_wake_time, new_wake_time)
    JOIN executions e ON e.shard_id = w.shard_id AND e.run_id = w.run_id
    WHERE (e.owes <> w.owes AND e.close_time IS NULL) OR e.wake_time = w.old_wake_time
    ORDER BY e.run_id FOR UPDATE OF e
)
UPDATE executions e SET owes = coalesce(l.owes, e.owes),
    wake_time = CASE WHEN e.wake_time = l.old_wake_time THEN l.new_wake_time ELSE e.wake_time END
FROM locked l WHERE e.shard_id = l.shard_id AND e.run_id = l.run_id
"""

_UPDATE_AGGREGATES = """
WITH locked AS (
    SELECT a.shard_id, a.id, w.owes, w.old_wake_time, w.new_wake_time
    FROM unnest(%s::integer[], %s::uuid[], %s::boolean[], %s::timestamptz[], %s::timestamptz[])
        AS w (shard_id, id, owes, old_wake_time, new_wake_time)
    JOIN aggregates a ON a.shard_id = w.shard_id AND a.id = w.id
    WHERE (a.owes <> w.owes AND a.close_time IS NULL) OR a.wake_time = w.old_wake_time
    ORDER BY a.id FOR UPDATE OF a
)
UPDATE aggregates a SET owes = coalesce(l.owes, a.owes),
    wake_time = CASE WHEN a.wake_time = l.old_wake_time THEN l.new_wake_time ELSE a.wake_time END
FROM locked l WHERE a.shard_id = l.shard_id AND a.id = l.id
"""

_RELEASE = """
UPDATE shards s SET host_id = NULL
FROM unnest(%s::integer[], %s::bigint[]) AS w (shard_id, range_id)
WHERE s.shard_id = w.shard_id AND s.range_id = w.range_id AND s.host_id = %s
"""


async def ensure_cluster(db: Database, shard_count: int) -> int:
    """Create the cluster's row and its shards if they are not there yet.

    Returns:
        The number of shards.

    Raises:
        ConfigError: The cluster has another number of shards.
        StorageUnavailableError: Postgres does not answer.
    """
    found = await load_shard_count(db)
    if found is None:

        async def create(connection: Connection) -> None:
            await connection.execute(_CREATE_CLUSTER, [shard_count])
            await connection.execute(_CREATE_SHARDS, [shard_count])

        await db.run_transaction(create)
        found = await load_shard_count(db)
    if found != shard_count:
        raise ConfigError(
            "history.shard_count",
            f"expected {found}, with which the cluster was created, found {shard_count}",
        )
    return shard_count


async def load_shard_count(db: Database) -> int | None:
    """The number of shards; None where no cluster has been created.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch("SELECT shard_count FROM cluster")
    return rows[0][0] if rows else None


async def load_shards(db: Database) -> list[ShardRow]:
    """All shards, by number.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return [ShardRow(*row) for row in await db.fetch(_LOAD)]


async def acquire_shards(
    db: Database,
    host_id: str,
    shard_ids: Collection[int],
    make_note: MakeNote,
) -> list[AcquiredShard]:
    """Take those of the shards that are free or ours, and note it in their logs.

    Their number of statements does not depend on the number of shards. Where another host takes one
    at the same time, one of the two gets it.

    Returns:
        The shards taken, by number; their owners from before cannot commit any more.

    Raises:
        StorageUnavailableError: Postgres does not answer, or an owner from before commits so fast
            that the note found no place. Nothing was taken, unless the connection was lost at the
            end: then the same call takes them anew.
    """

    async def take(connection: Connection) -> list[AcquiredShard]:
        cursor = await connection.execute(_TAKE, {"shard_ids": list(shard_ids), "host_id": host_id})
        taken = sorted(await cursor.fetchall())
        note_seqs = await _write_notes(connection, taken, make_note)
        return [
            AcquiredShard(shard_id, range_id, note_seqs[shard_id] + 1, watermark)
            for shard_id, range_id, watermark in taken
        ]

    return await db.run_transaction(take)


async def _write_notes(
    connection: Connection, taken: Sequence[Row], make_note: MakeNote
) -> dict[int, int]:
    """Append a note to each shard's log. Returns shard_seq by shard."""
    notes = {shard_id: make_note(shard_id, range_id) for shard_id, range_id, _ in taken}
    written: dict[int, int] = {}
    for _ in range(_NOTE_ATTEMPTS):
        missing = sorted(notes.keys() - written.keys())
        if not missing:
            return written
        cursor = await connection.execute(_TAILS, [missing])
        tails: dict[int, int] = dict(await cursor.fetchall())
        columns = (
            missing,
            [tails[shard_id] + 1 for shard_id in missing],
            [notes[shard_id][0] for shard_id in missing],
            [notes[shard_id][1] for shard_id in missing],
        )
        cursor = await connection.execute(_NOTE, columns)
        written.update(await cursor.fetchall())
    rest = sorted(notes.keys() - written.keys())
    raise StorageUnavailableError("postgres", f"shards {rest} are written to by another host")


async def settle_shards(
    db: Database, host_id: str, settlements: Sequence[ShardSettlement]
) -> set[int]:
    """Move watermarks, mark runs and rewrite wake-ups, in one transaction.

    Returns:
        The shards that are still ours. Of the others nothing was written.

    Raises:
        StorageUnavailableError: Postgres does not answer; what was asked may have been written.
    """
    ordered = sorted(settlements, key=lambda settlement: settlement.shard_id)

    async def settle(connection: Connection) -> set[int]:
        cursor = await connection.execute(
            _SETTLE,
            (
                [settlement.shard_id for settlement in ordered],
                [settlement.range_id for settlement in ordered],
                [settlement.watermark for settlement in ordered],
                host_id,
            ),
        )
        ours = {row[0] for row in await cursor.fetchall()}
        of_runs, of_aggregates = _row_updates([each for each in ordered if each.shard_id in ours])
        # In the order of LogWriter, here too.
        if of_runs:
            await connection.execute(_UPDATE_RUNS, _columns_of(of_runs))
        if of_aggregates:
            await connection.execute(_UPDATE_AGGREGATES, _columns_of(of_aggregates))
        return ours

    return await db.run_transaction(settle)


_RowUpdate = tuple[int, str, bool | None, datetime | None, datetime | None]


def _columns_of(updates: Sequence[_RowUpdate]) -> list[list[Any]]:
    return [list(column) for column in zip(*updates, strict=True)]


def _row_updates(
    settlements: Sequence[ShardSettlement],
) -> tuple[list[_RowUpdate], list[_RowUpdate]]:
    """What changes of owes, if anything, and of wake_time, if anything: one update for each row of
    runs, and one for each of other aggregates.
    """
    of_runs: list[_RowUpdate] = []
    of_aggregates: list[_RowUpdate] = []
    for settlement in settlements:
        owes = dict.fromkeys(settlement.owes_cleared, False) | dict.fromkeys(
            settlement.owes_set, True
        )
        rewrites = {rewrite.id: rewrite for rewrite in settlement.wake_rewrites}
        for id_ in owes.keys() | rewrites.keys():
            rewrite = rewrites.get(id_)
            old_time, new_time = (rewrite.old_time, rewrite.new_time) if rewrite else (None, None)
            updates = of_aggregates if id_ in settlement.in_aggregates else of_runs
            updates.append((settlement.shard_id, id_, owes.get(id_), old_time, new_time))
    return of_runs, of_aggregates


async def release_shards(db: Database, host_id: str, shards: Sequence[tuple[int, int]]) -> None:
    """Give shards up, given as (shard_id, range_id); those no longer ours stay as they are.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    ordered = sorted(shards)
    await db.fetch(
        _RELEASE, ([shard[0] for shard in ordered], [shard[1] for shard in ordered], host_id)
    )
