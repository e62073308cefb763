"""Plans on tables that have never held a row: they are kept for long after that."""

import re
from typing import LiteralString

import pytest

from aetheris_server.storage import (
    aggregates,
    commit,
    executions,
    finding,
    log,
    newest,
    shards,
    snapshots,
)
from aetheris_server.storage.aggregate_rows import UPDATE_AGGREGATES
from aetheris_server.storage.database import Connection, Database
from aetheris_server.storage.execution_rows import UPDATE_EXECUTIONS

pytestmark = pytest.mark.integration

_PAGE: LiteralString = (
    f"{executions._COLUMNS} WHERE namespace_id = %s AND (start_time, run_id) < (%s, %s)"
    " ORDER BY e.start_time DESC, e.run_id DESC LIMIT %s"
)


_PAGE_OF_ID: LiteralString = (
    f"{executions._COLUMNS} WHERE namespace_id = %s AND shard_id = %s AND workflow_id = %s"
    " ORDER BY e.start_time DESC, e.run_id DESC LIMIT %s"
)


async def explain(db: Database, statement: str) -> list[str]:
    """The lines of the plan that is made without knowing the parameters."""
    for number in range(1, statement.count("%s") + 1):
        statement = statement.replace("%s", f"${number}", 1)
    names = dict.fromkeys(re.findall(r"%\((\w+)\)s", statement))
    for number, name in enumerate(names, start=1):
        statement = statement.replace(f"%({name})s", f"${number}")

    async def run(connection: Connection) -> list[str]:
        cursor = await connection.execute(f"EXPLAIN (GENERIC_PLAN) {statement}".encode())
        return [line for (line,) in await cursor.fetchall()]

    return await db.run_transaction(run)


@pytest.mark.parametrize(
    "statement,index,columns",
    [
        pytest.param(log._RUN, "log_run", {"run_id", "run_seq"}, id="run"),
        pytest.param(log._RUN_EVENTS, "log_run", {"run_id", "run_seq"}, id="run-events"),
        pytest.param(log._RUNS, "log_run", {"run_id", "run_seq"}, id="runs-logs"),
        pytest.param(shards._TAILS, "log_pkey", {"shard_id"}, id="tails"),
        pytest.param(commit._FIND_ROWS, "log_pkey", {"shard_id", "shard_seq"}, id="find-rows"),
        pytest.param(
            executions._NEWEST, "executions_workflow", {"namespace_id", "workflow_id"}, id="newest"
        ),
        pytest.param(
            newest._STATEMENTS[newest._EXISTS],
            "executions_workflow",
            {"namespace_id", "workflow_id"},
            id="exists",
        ),
        pytest.param(
            executions._OF_REQUEST,
            "executions_(repeats|workflow)",
            {"namespace_id", "workflow_id", "start_request_id"},
            id="of-request",
        ),
        pytest.param(
            _PAGE_OF_ID,
            "executions_workflow",
            {"namespace_id", "workflow_id"},
            id="list-of-id",
        ),
        pytest.param(
            executions._SEVERAL, "executions_pkey", {"shard_id", "run_id"}, id="runs-rows"
        ),
        pytest.param(_PAGE, "executions_list", {"namespace_id", "start_time"}, id="list"),
        pytest.param(
            finding._DUE,
            "(executions|aggregates)_wake",
            {"shard_id", "wake_time"},
            id="due",
        ),
        pytest.param(finding._OWING, "(executions|aggregates)_owing", {"shard_id"}, id="owing"),
        pytest.param(shards._UPDATE_RUNS, "executions_pkey", {"shard_id", "run_id"}, id="runs"),
        pytest.param(
            shards._UPDATE_AGGREGATES, "aggregates_pkey", {"shard_id", "id"}, id="aggregates"
        ),
        pytest.param(aggregates._SEVERAL, "aggregates_pkey", {"shard_id", "id"}, id="several"),
        pytest.param(
            UPDATE_AGGREGATES.sql, "aggregates_pkey", {"shard_id", "id"}, id="update-aggregates"
        ),
        pytest.param(
            UPDATE_EXECUTIONS.sql,
            "executions_pkey",
            {"shard_id", "run_id"},
            id="update",
        ),
        pytest.param(snapshots._LOAD, "snapshots_pkey", {"shard_id", "run_id"}, id="snapshots"),
    ],
)
async def test_plan_on_empty_tables_goes_by_the_index_made_for_it(
    db: Database, statement: str, index: str, columns: set[str]
) -> None:
    plan = await explain(db, statement)

    tables = ("log", "executions", "aggregates", "snapshots")
    scans = [line for line in plan if any(f" on {table}" in line for table in tables)]
    uses = re.compile(rf"using {index} ")
    assert all(uses.search(line) for line in scans if "Update on" not in line), plan
    assert "Seq Scan" not in "".join(plan)
    conditions = " ".join(line for line in plan if "Index Cond" in line)
    assert all(column in conditions for column in columns), plan


async def test_plan_of_recovery_on_empty_tables_goes_by_both_indexes(db: Database) -> None:
    plan = "\n".join(await explain(db, finding._OPEN_SINCE))

    assert "using log_pkey on log" in plan
    assert "using executions_pkey on executions" in plan
    assert "using aggregates_pkey on aggregates" in plan
    assert "Seq Scan" not in plan
