"""One row per run: an index of the log, by which runs are found without reading it.

What a row has, and how it is written, is in `execution_rows`.

The newest run of a workflow id is the one with the greatest `start_time`, so who starts a run gives
it a time later than that of the workflow id's run before.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import ExecutionRow
from aetheris_server.storage.uuids import is_uuid


@dataclass(frozen=True, slots=True)
class NewestRun:
    """What decides whether a workflow id can be started again. `close_time` None is open."""

    run_id: str
    status: int
    start_request_id: str
    first_execution_run_id: str
    start_time: datetime
    close_time: datetime | None


@dataclass(frozen=True, slots=True)
class ExecutionFilter:
    """Conditions on a run that all must hold; None, or no status, holds for every run.

    Attributes:
        shard_id: That of `workflow_id`, for whoever asks for one: says where to look.
        earliest_start_time: Inclusive.
        latest_start_time: Exclusive.
    """

    shard_id: int | None = None
    workflow_id: str | None = None
    workflow_type: str | None = None
    statuses: Collection[int] = ()
    earliest_start_time: datetime | None = None
    latest_start_time: datetime | None = None


WorkflowKey = tuple[int, str, str]
"""(shard_id, namespace_id, workflow_id)."""

_NEWEST = """
SELECT w.position, e.run_id::text, e.status, e.start_request_id, e.first_execution_run_id::text,
    e.start_time, e.close_time
FROM unnest(%s::integer[], %s::uuid[], %s::text[])
    WITH ORDINALITY AS w (shard_id, namespace_id, workflow_id, position)
CROSS JOIN LATERAL (
    SELECT * FROM executions x
    WHERE x.shard_id = w.shard_id AND x.namespace_id = w.namespace_id
        AND x.workflow_id = w.workflow_id
    ORDER BY x.start_time DESC LIMIT 1
) AS e
"""

# The first run of an id has no entry among the repeats.
_OF_REQUEST = """
(
    SELECT run_id::text FROM executions
    WHERE shard_id = %s AND namespace_id = %s AND workflow_id = %s AND start_request_id = %s
        AND repeats_id
    LIMIT 1
) UNION ALL (
    SELECT f.run_id::text FROM (
        SELECT run_id, start_request_id FROM executions
        WHERE shard_id = %s AND namespace_id = %s AND workflow_id = %s
        ORDER BY start_time LIMIT 1
    ) AS f WHERE f.start_request_id = %s
) LIMIT 1
"""

_COLUMNS = """
SELECT shard_id, namespace_id::text, workflow_id, run_id::text, first_execution_run_id::text,
    start_request_id, workflow_type, task_queue, status, start_time, execution_time, close_time,
    history_length, history_bytes, memo, convert_to(search_attributes::text, 'UTF8'),
    coalesce(parent_namespace_id::text, ''), coalesce(parent_workflow_id, ''),
    coalesce(parent_run_id::text, ''), wake_time, owes, repeats_id
FROM executions e
"""

_SEVERAL: LiteralString = f"""{_COLUMNS}
JOIN unnest(%s::integer[], %s::uuid[]) AS w (of_shard, of_run)
    ON e.shard_id = w.of_shard AND e.run_id = w.of_run
"""

_WEIGHTS = """
SELECT w.shard_id, w.run_id::text, (
    coalesce(octet_length(s.state), 0) + coalesce(octet_length(e.memo), 0) + coalesce((
        SELECT sum(octet_length(l.record)) FROM log l
        WHERE l.shard_id = w.shard_id AND l.run_id = w.run_id
            AND l.run_seq > coalesce(s.run_seq, 0)
    ), 0)
)::bigint
FROM unnest(%s::integer[], %s::uuid[]) AS w (shard_id, run_id)
JOIN executions e ON e.shard_id = w.shard_id AND e.run_id = w.run_id
LEFT JOIN snapshots s ON s.shard_id = w.shard_id AND s.run_id = w.run_id
"""


async def load_newest_runs(
    db: Database, keys: Sequence[WorkflowKey]
) -> dict[WorkflowKey, NewestRun]:
    """The newest run of each workflow id, open or closed; those that have none are left out.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    if not keys:
        return {}
    shard_ids, namespace_ids, workflow_ids = (list(column) for column in zip(*keys, strict=True))
    rows = await db.fetch(_NEWEST, (shard_ids, namespace_ids, workflow_ids))
    return {keys[position - 1]: NewestRun(*columns) for position, *columns in rows}


async def find_run_of_request(
    db: Database, shard_id: int, namespace_id: str, workflow_id: str, start_request_id: str
) -> str | None:
    """The id of the run of a workflow id that a request has started; None if it has started none.

    Reads two rows at most, however many runs the workflow id has.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    key = (shard_id, namespace_id, workflow_id, start_request_id)
    rows = await db.fetch(_OF_REQUEST, (*key, *key))
    return rows[0][0] if rows else None


async def load_executions(db: Database, runs: Sequence[tuple[int, str]]) -> list[ExecutionRow]:
    """Several runs, given as (shard_id, run_id), in no order; those there are not are left out.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return [ExecutionRow(*row) for row in await db.fetch(_SEVERAL, _columns_of(runs))]


async def weigh_runs(db: Database, runs: Sequence[tuple[int, str]]) -> list[tuple[int, str, int]]:
    """What loading runs, given as (shard_id, run_id), takes: the bytes of a snapshot and behind it.

    Returns:
        (shard_id, run_id, byte_count), in no order; those there are not are left out.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_WEIGHTS, _columns_of(runs))
    return [(row[0], row[1], row[2]) for row in rows]


def _columns_of(runs: Sequence[tuple[int, str]]) -> tuple[list[int], list[str]]:
    known = [(shard_id, run_id) for shard_id, run_id in runs if is_uuid(run_id)]
    return [run[0] for run in known], [run[1] for run in known]


async def list_executions(
    db: Database,
    namespace_id: str,
    filter: ExecutionFilter,  # noqa: A002 - the word of the public API
    page_size: int,
    after: tuple[datetime, str] | None = None,
) -> list[ExecutionRow]:
    """A page of a namespace's runs, the newest start first.

    Args:
        db: Where to look.
        namespace_id: Whose runs.
        filter: Which of them.
        page_size: At most so many.
        after: (start_time, run_id) of the last run of the page before; None is the first page.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    conditions: list[LiteralString] = ["namespace_id = %s"]
    parameters: list[object] = [namespace_id]
    wanted: list[tuple[LiteralString, object | None]] = [
        ("shard_id = %s", filter.shard_id),
        ("workflow_id = %s", filter.workflow_id),
        ("workflow_type = %s", filter.workflow_type),
        ("status = ANY (%s)", sorted(filter.statuses) or None),
        ("start_time >= %s", filter.earliest_start_time),
        ("start_time < %s", filter.latest_start_time),
    ]
    for condition, value in wanted:
        if value is not None:
            conditions.append(condition)
            parameters.append(value)
    if after is not None:
        conditions.append("(start_time, run_id) < (%s, %s)")
        parameters += after
    where = " AND ".join(conditions)
    query = f"{_COLUMNS} WHERE {where} ORDER BY e.start_time DESC, e.run_id DESC LIMIT %s"
    rows = await db.fetch(query, (*parameters, page_size))
    return [ExecutionRow(*row) for row in rows]
