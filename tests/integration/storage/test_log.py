import json
from typing import Any, LiteralString

import pytest

from aetheris_server.ids import new_run_id
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.log import (
    _RUN_EVENTS,
    load_run,
    load_run_events,
)
from tests.integration.storage.rows import batch_of, log_row

pytestmark = pytest.mark.integration

# Events 1-2, none, 3, none, 4-6, 7: the last record of each pair that shares a first id has them.
EVENT_COUNTS = (2, 0, 1, 0, 3, 1)


@pytest.fixture
async def run_id(writer: LogWriter) -> str:
    """A run with `EVENT_COUNTS`, among records of another."""
    run_id, other_run_id = new_run_id(), new_run_id()
    rows, next_event_id = [log_row(1, 1, other_run_id)], 1
    for seq, count in enumerate(EVENT_COUNTS, start=1):
        rows.append(log_row(1, seq + 1, run_id, seq, next_event_id, count, b"%d" % seq))
        next_event_id += count
    rows.append(log_row(1, len(rows) + 1, other_run_id, run_seq=2))
    await writer.commit(batch_of(log=rows))
    return run_id


async def test_load_run_after_a_record_returns_the_tail(db: Database, run_id: str) -> None:
    assert [record.run_seq for record in await load_run(db, 1, run_id)] == [1, 2, 3, 4, 5, 6]
    assert [record.record for record in await load_run(db, 1, run_id, 4)] == [b"5", b"6"]
    assert await load_run(db, 1, run_id, 6) == []


@pytest.mark.parametrize("strange_id", ["", "order-1", "{}", "upper"])
async def test_load_run_id_that_is_no_uuid_finds_nothing(
    db: Database, run_id: str, strange_id: str
) -> None:
    strange_id = run_id.upper() if strange_id == "upper" else strange_id

    assert await load_run(db, 1, strange_id) == []
    assert await load_run_events(db, 1, strange_id, 1, 10) == []


@pytest.mark.parametrize(
    "from_event_id, expected",
    [
        (0, [1, 3, 5, 6]),
        (1, [1, 3, 5, 6]),
        (2, [1, 3, 5, 6]),
        (3, [3, 5, 6]),
        (4, [5, 6]),
        (6, [5, 6]),
        (7, [6]),
        (8, []),
        (1000, []),
    ],
)
async def test_load_run_events_returns_records_with_these_events(
    db: Database, run_id: str, from_event_id: int, expected: list[int]
) -> None:
    records = await load_run_events(db, 1, run_id, from_event_id, 10)

    assert [record.run_seq for record in records] == expected


async def test_load_run_events_stops_at_max_rows(db: Database, run_id: str) -> None:
    assert [r.run_seq for r in await load_run_events(db, 1, run_id, 1, 2)] == [1, 3]


async def test_load_run_events_of_a_run_that_is_not_there_finds_nothing(db: Database) -> None:
    assert await load_run_events(db, 1, new_run_id(), 1, 10) == []


async def test_load_run_events_near_the_end_of_a_long_run_reads_few_rows(
    db: Database, writer: LogWriter
) -> None:
    run_id = new_run_id()
    count = 5000
    await writer.commit(batch_of(log=[log_row(1, n, run_id, n, n) for n in range(1, count + 1)]))

    records = await load_run_events(db, 1, run_id, count - 1, 10)

    assert [record.first_event_id for record in records] == [count - 1, count]
    assert await count_rows_read(db, run_id, count - 1) < 50


async def count_rows_read(db: Database, run_id: str, from_event_id: int) -> int:
    """The rows of the log that the statement looks at, from the plan that it ran with."""
    explain: LiteralString = f"EXPLAIN (ANALYZE, FORMAT JSON) {_RUN_EVENTS}"
    parameters = {"shard_id": 1, "run_id": run_id, "event_id": from_event_id, "max_rows": 10}
    text = json.dumps((await db.fetch(explain, parameters))[0][0])
    total = 0.0

    def add(node: dict[str, Any]) -> dict[str, Any]:
        nonlocal total
        if node.get("Relation Name") == "log":
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            total += rows * node["Actual Loops"]
        return node

    json.loads(text, object_hook=add)
    return int(total)
