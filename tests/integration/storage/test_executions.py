import re
from datetime import timedelta
from typing import Any

import pytest

from aetheris_server.ids import new_run_id
from aetheris_server.storage import executions
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Connection, Database
from aetheris_server.storage.execution_rows import ExecutionRow
from aetheris_server.storage.executions import (
    ExecutionFilter,
    find_run_of_request,
    list_executions,
    load_executions,
    load_newest_runs,
)
from tests.integration.storage.rows import (
    COMPLETED,
    NAMESPACE_ID,
    RUNNING,
    START_TIME,
    batch_of,
    close_update,
    execution_row,
)
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


def minutes(count: int) -> timedelta:
    return timedelta(minutes=count)


async def insert(writer: LogWriter, *rows: ExecutionRow) -> None:
    await writer.commit(batch_of(inserts=list(rows)))


async def test_load_newest_runs_returns_the_last_start_of_each_workflow_id(
    db: Database, writer: LogWriter
) -> None:
    old = execution_row(workflow_id="twice")
    new = execution_row(workflow_id="twice", start_time=START_TIME + minutes(1))
    once = execution_row(shard_id=2, workflow_id="once")
    await insert(writer, new, old, once)
    keys = [(2, NAMESPACE_ID, "once"), (1, NAMESPACE_ID, "none"), (1, NAMESPACE_ID, "twice")]

    found = await load_newest_runs(db, keys)

    assert {key[2]: run.run_id for key, run in found.items()} == {
        "once": once.run_id,
        "twice": new.run_id,
    }


async def test_load_newest_runs_returns_what_decides_about_a_start(
    db: Database, writer: LogWriter
) -> None:
    row = execution_row()
    update = close_update(row)
    await writer.commit(batch_of(inserts=[row], updates=[update]))
    key = (1, NAMESPACE_ID, row.workflow_id)

    run = (await load_newest_runs(db, [key]))[key]

    assert (run.run_id, run.status, run.start_request_id, run.first_execution_run_id) == (
        row.run_id,
        COMPLETED,
        row.start_request_id,
        row.first_execution_run_id,
    )
    assert (run.start_time, run.close_time) == (row.start_time, update.close_time)


async def with_many_runs(writer: LogWriter, count: int) -> list[ExecutionRow]:
    """Runs of one workflow id, each started by a request of its own."""
    rows = [
        execution_row(
            start_time=START_TIME + minutes(number),
            start_request_id=f"request-{number}",
            status=COMPLETED,
            close_time=START_TIME + minutes(number),
            repeats_id=number > 0,
        )
        for number in range(count)
    ]
    await insert(writer, *rows)
    return rows


async def test_find_run_of_request_finds_the_first_the_last_and_those_between(
    db: Database, writer: LogWriter
) -> None:
    rows = await with_many_runs(writer, 5)
    await insert(writer, execution_row(workflow_id="other", start_request_id="other"))

    async def find(request_id: str, workflow_id: str = "order-1") -> str | None:
        return await find_run_of_request(db, 1, NAMESPACE_ID, workflow_id, request_id)

    found = [await find(f"request-{number}") for number in range(5)]
    assert found == [row.run_id for row in rows]
    assert await find("other") is None
    assert await find("request-0", "other") is None
    assert await find("request-0", "none") is None


async def test_find_run_of_request_finds_runs_from_before_repeats_were_marked(
    db: Database, writer: LogWriter
) -> None:
    rows = await with_many_runs(writer, 3)
    await db.fetch("UPDATE executions SET repeats_id = true")
    for number, row in enumerate(rows):
        request_id = f"request-{number}"
        assert await find_run_of_request(db, 1, NAMESPACE_ID, "order-1", request_id) == row.run_id


@pytest.mark.parametrize("request_id", ["request-0", "request-2500", "request-4999", "none"])
async def test_find_run_of_request_reads_as_little_of_many_runs_as_of_few(
    db: Database, writer: LogWriter, request_id: str
) -> None:
    await with_many_runs(writer, 5000)
    key = (1, NAMESPACE_ID, "order-1", request_id)

    async def explain(connection: Connection) -> list[str]:
        statement: Any = "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) " + executions._OF_REQUEST
        cursor = await connection.execute(statement, (*key, *key))
        return [line for (line,) in await cursor.fetchall()]

    plan = await db.run_transaction(explain)
    [blocks, *_] = [line for line in plan if "Buffers: shared" in line]
    assert sum(int(count) for count in re.findall(r"(?:hit|read)=(\d+)", blocks)) <= 15, plan


async def test_load_newest_runs_of_nothing_asks_nothing(db: Database) -> None:
    assert await load_newest_runs(db, []) == {}


async def test_load_executions_leaves_out_what_is_not_there(
    db: Database, writer: LogWriter
) -> None:
    row = execution_row()
    await insert(writer, row)

    wanted = [(1, row.run_id), (2, row.run_id), (1, new_run_id()), (1, "not-a-run")]
    assert await load_executions(db, wanted) == [row]


async def test_list_executions_pages_hold_each_run_once_newest_first(
    db: Database, writer: LogWriter
) -> None:
    # Two of each start time, so that pages also end between equals.
    rows = [execution_row(start_time=START_TIME + minutes(n // 2)) for n in range(9)]
    await insert(writer, *rows)

    listed: list[ExecutionRow] = []
    after = None
    while page := await list_executions(db, NAMESPACE_ID, ExecutionFilter(), 2, after):
        listed += page
        after = (page[-1].start_time, page[-1].run_id)

    assert listed == sorted(rows, key=lambda row: (row.start_time, row.run_id), reverse=True)


@pytest.mark.parametrize(
    "conditions, expected",
    [
        (ExecutionFilter(), {"a", "b", "c"}),
        (ExecutionFilter(workflow_id="b"), {"b"}),
        (ExecutionFilter(workflow_id="b", shard_id=2), {"b"}),
        (ExecutionFilter(workflow_type="Order"), {"a", "b"}),
        (ExecutionFilter(statuses={RUNNING}), {"a", "c"}),
        (ExecutionFilter(statuses=[RUNNING, COMPLETED]), {"a", "b", "c"}),
        (ExecutionFilter(earliest_start_time=START_TIME + minutes(1)), {"b", "c"}),
        (ExecutionFilter(latest_start_time=START_TIME + minutes(1)), {"a"}),
        (ExecutionFilter(workflow_type="Order", statuses={COMPLETED}), {"b"}),
        (ExecutionFilter(workflow_type="None"), set()),
    ],
)
async def test_list_executions_filter_keeps_runs_for_which_all_holds(
    db: Database, writer: LogWriter, conditions: ExecutionFilter, expected: set[str]
) -> None:
    await insert(
        writer,
        execution_row(workflow_id="a"),
        execution_row(2, "b", start_time=START_TIME + minutes(1), status=COMPLETED),
        execution_row(3, "c", start_time=START_TIME + minutes(2), workflow_type="Refund"),
    )

    listed = await list_executions(db, NAMESPACE_ID, conditions, 10)

    assert {row.workflow_id for row in listed} == expected


async def test_list_executions_of_another_namespace_is_empty(
    db: Database, writer: LogWriter
) -> None:
    await insert(writer, execution_row())

    assert await list_executions(db, new_run_id(), ExecutionFilter(), 10) == []


async def test_closing_a_run_touches_no_index(db: Database, writer: LogWriter) -> None:
    rows = [execution_row(workflow_id=f"order-{n}") for n in range(50)]
    await insert(writer, *rows)
    await writer.commit(batch_of(updates=[close_update(row) for row in rows]))
    # The server counts a session's changes for good when that ends.
    await writer.close()

    async def are_all_counted() -> bool:
        return await count_updates(db) == (50, 50)

    await wait_until(are_all_counted, what="50 updates, all within their page")


async def count_updates(db: Database) -> tuple[int, int]:
    """Updates of executions, and how many of them made no index entry."""
    rows = await db.fetch(
        "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'executions'"
    )
    return rows[0][0], rows[0][1]
