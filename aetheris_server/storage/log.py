"""The log: what was written, read back. `commit` writes it.

Per shard the rows are numbered without gaps by `shard_seq`; per run by `run_seq`, from 1. A
record's bytes are returned as they were stored, for the hash chain runs over them. What is said
here of runs holds for aggregates of every kind: `run_id` is an aggregate's id.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aetheris_server.storage.database import Database, Reader
from aetheris_server.storage.uuids import is_uuid


@dataclass(frozen=True, slots=True)
class LogRow:
    """One record, with its places in the shard and in the run.

    Attributes:
        namespace_id: A UUID; empty in a note about the shard.
        run_id: A UUID; empty in a note about the shard.
        first_event_id: Of the record's events; where it has none, of the run's next event. So it
            never falls from one record of a run to the next.
        event_count: May be 0.
    """

    shard_id: int
    shard_seq: int
    namespace_id: str
    run_id: str
    run_seq: int
    first_event_id: int
    event_count: int
    record: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class LoggedRun:
    """A run that the log has the first record of, and what all of its records take."""

    namespace_id: str
    run_id: str
    byte_count: int


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One record of a run whose shard is known."""

    shard_seq: int
    run_seq: int
    first_event_id: int
    event_count: int
    record: bytes
    hash: bytes


_RUN = """
SELECT shard_seq, run_seq, first_event_id, event_count, record, hash
FROM log WHERE shard_id = %s AND run_id = %s AND run_seq > %s ORDER BY run_seq
"""

_RUNS = """
SELECT l.run_id::text, l.shard_seq, l.run_seq, l.first_event_id, l.event_count, l.record, l.hash
FROM unnest(%s::integer[], %s::uuid[], %s::bigint[]) AS w (shard_id, run_id, run_seq)
JOIN log l ON l.shard_id = w.shard_id AND l.run_id = w.run_id AND l.run_seq > w.run_seq
ORDER BY l.run_id, l.run_seq
"""

_TAIL = "SELECT coalesce(max(shard_seq), 0) FROM log WHERE shard_id = %s"

_STARTS = """
SELECT l.namespace_id::text, l.run_id::text, (
    SELECT sum(octet_length(r.record)) FROM log r
    WHERE r.shard_id = l.shard_id AND r.run_id = l.run_id
)::bigint
FROM log l
WHERE l.shard_id = %s AND l.shard_seq > %s AND l.shard_seq <= %s AND l.run_seq = 1
ORDER BY l.shard_seq
"""

# What is read ahead of the limit in bytes has no record in it.
_PART = """
SELECT shard_seq, run_seq, first_event_id, event_count, record, hash FROM (
    SELECT *, sum(octet_length(record)) OVER (ORDER BY run_seq) - octet_length(record) AS before
    FROM (
        SELECT * FROM log WHERE shard_id = %s AND run_id = %s AND run_seq > %s
        ORDER BY run_seq LIMIT %s
    ) AS next
) AS part
WHERE before < %s ORDER BY run_seq
"""

# Where the wanted events begin is found by bisection: run_seq has no gaps and event ids grow with
# it, so an index of event ids, which every commit would pay for, is not needed.
_RUN_EVENTS = """
WITH RECURSIVE bounds (low, high) AS (
    SELECT 1::bigint, (
        SELECT run_seq FROM log
        WHERE shard_id = %(shard_id)s AND run_id = %(run_id)s ORDER BY run_seq DESC LIMIT 1
    )
    UNION ALL
    SELECT
        CASE WHEN l.first_event_id + l.event_count > %(event_id)s THEN b.low ELSE l.run_seq + 1 END,
        CASE WHEN l.first_event_id + l.event_count > %(event_id)s THEN l.run_seq ELSE b.high END
    FROM bounds b
    -- The limit keeps the planner from reading the whole run first and bisecting it then.
    CROSS JOIN LATERAL (
        SELECT run_seq, first_event_id, event_count FROM log
        WHERE shard_id = %(shard_id)s AND run_id = %(run_id)s AND run_seq = (b.low + b.high) / 2
        LIMIT 1
    ) AS l
    WHERE b.low < b.high
)
SELECT shard_seq, run_seq, first_event_id, event_count, record, hash FROM log
WHERE shard_id = %(shard_id)s AND run_id = %(run_id)s AND run_seq >= (SELECT max(low) FROM bounds)
    AND event_count > 0 AND first_event_id + event_count > %(event_id)s
ORDER BY run_seq LIMIT %(max_rows)s
"""


async def load_run(
    db: Database, shard_id: int, run_id: str, after_run_seq: int = 0
) -> list[RunRecord]:
    """A run's records behind `after_run_seq`, in order; empty where there are none.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    if not is_uuid(run_id):
        return []
    rows = await db.fetch(_RUN, (shard_id, run_id, after_run_seq))
    return [RunRecord(*row) for row in rows]


async def load_runs(
    db: Reader, wanted: Sequence[tuple[int, str, int]]
) -> dict[str, list[RunRecord]]:
    """The records of several runs, given as (shard_id, run_id, after_run_seq), in order by run id.

    A run that has none is left out. All of it is in memory at once.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    known = [each for each in wanted if is_uuid(each[1])]
    rows = await db.fetch(_RUNS, tuple([each[column] for each in known] for column in range(3)))
    records: dict[str, list[RunRecord]] = {}
    for run_id, *columns in rows:
        records.setdefault(run_id, []).append(RunRecord(*columns))
    return records


async def load_run_events(
    db: Database, shard_id: int, run_id: str, from_event_id: int, max_rows: int
) -> list[RunRecord]:
    """The first `max_rows` records that contain events from `from_event_id` on, in order.

    The first may also contain earlier events. Records without events are left out. The cost does
    not grow with the events before.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    if not is_uuid(run_id):
        return []
    parameters = {
        "shard_id": shard_id,
        "run_id": run_id,
        "event_id": from_event_id,
        "max_rows": max_rows,
    }
    rows = await db.fetch(_RUN_EVENTS, parameters)
    return [RunRecord(*row) for row in rows]


async def load_tail(db: Reader, shard_id: int) -> int:
    """The number of a shard's last log row; 0 where it has none.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return (await db.fetch(_TAIL, [shard_id]))[0][0]


async def find_starts(db: Reader, shard_id: int, after_seq: int, until_seq: int) -> list[LoggedRun]:
    """The runs that begin in a part of a shard's log, (after_seq, until_seq], in its order.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_STARTS, (shard_id, after_seq, until_seq))
    return [LoggedRun(*row) for row in rows]


async def load_run_part(
    db: Reader, shard_id: int, run_id: str, after_run_seq: int, max_rows: int, max_bytes: int
) -> list[RunRecord]:
    """A run's next records behind `after_run_seq`, in order; empty where there are none.

    At most `max_rows`, and no more once they have `max_bytes`.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_PART, (shard_id, run_id, after_run_seq, max_rows, max_bytes))
    return [RunRecord(*row) for row in rows]
