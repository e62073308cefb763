"""`aetheris-server rebuild`: beside servers, without, and killed half-way."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.support.processes import FAST, ServerProcess, running, start_arguments
from tests.support.raw import Raw, complete_workflow, start_timer

pytestmark = [pytest.mark.fault, pytest.mark.slow]

_CLI = "from aetheris_server.cli import main; main()"

# Dies the third time that it has done a step of a group, of which each has one run.
_DEADLY = """
import os, signal, sys
from aetheris_server.history import rebuild
from aetheris_server.storage.rebuild import MadeTable

name, count = sys.argv.pop(1), 0
step = getattr(MadeTable, name)

async def deadly(*arguments):
    global count
    count += 1
    answer = await step(*arguments)
    if count == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

setattr(MadeTable, name, deadly)
rebuild._GROUP_RUNS = 1
"""


async def _run(*arguments: str, program: str = _CLI) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "AETHERIS_LOG__LEVEL": "warning"},
    )


def _change(dsn: str, statement: LiteralString) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def _rows(dsn: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT workflow_id, status, close_time, task_queue FROM executions ORDER BY run_id"
        ).fetchall()


async def _make_runs(server: Raw) -> None:
    for number in range(6):
        await server.start_run()
        command = complete_workflow() if number % 2 else start_timer("t", 600)
        await server.decide(await server.poll_workflow(), command)


@pytest.fixture
def process(
    migrated_postgres_dsn: str, redis_url: str, tmp_path: Path, redis_key_prefix: str
) -> ServerProcess:
    environment = {**FAST, "AETHERIS_REDIS__KEY_PREFIX": redis_key_prefix}
    return ServerProcess(tmp_path, start_arguments(migrated_postgres_dsn, redis_url), environment)


async def test_table_is_compared_beside_a_server_and_made_again_without_it(
    process: ServerProcess, migrated_postgres_dsn: str
) -> None:
    dsn = migrated_postgres_dsn
    command = ("rebuild", "executions", "--postgres-dsn", dsn)
    async with running(process), Raw(process.address) as server:
        await _make_runs(server)
        checked = await _run(*command, "--check")
        assert (checked.returncode, checked.stderr) == (0, "")
        assert checked.stdout.endswith("executions: 6 runs, as the log says\n")
        refused = await _run(*command)
        assert refused.returncode == 1
        assert f"servers at {process.internal_address} are running" in refused.stderr
        assert await process.terminate() == 0
    before = _rows(dsn)
    _change(dsn, "UPDATE executions SET task_queue = 'x' WHERE status = 2")
    differing = await _run(*command, "--check")
    assert differing.returncode == 1
    assert differing.stdout.count("task_queue: expected 'queue', found 'x'") == 3
    assert "executions is out of step with the log: 3 rows differ" in differing.stderr
    _change(dsn, "DELETE FROM executions WHERE status = 1")
    made = await _run(*command)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.endswith("executions: 6 runs, 6 rows written\n")
    assert _rows(dsn) == before
    async with running(process), Raw(process.address) as server:
        assert len(await server.list()) == 6


@pytest.mark.parametrize("step", ["hold", "write", "replace", "clear"])
async def test_rebuild_that_is_killed_leaves_rows_old_or_made_and_can_be_repeated(
    process: ServerProcess, migrated_postgres_dsn: str, step: str
) -> None:
    dsn = migrated_postgres_dsn
    command = ("rebuild", "executions", "--postgres-dsn", dsn)
    async with running(process), Raw(process.address) as server:
        await _make_runs(server)
        assert await process.terminate() == 0
    before = _rows(dsn)
    _change(dsn, "UPDATE executions SET task_queue = 'x'")
    killed = await _run(step, *command, program=_DEADLY + _CLI)
    assert killed.returncode == -signal.SIGKILL
    assert {row[-1] for row in _rows(dsn)} == {"queue", "x"}
    # A server serves what there is, and its shards are not held from it.
    async with running(process), Raw(process.address) as server:
        assert len(await server.list()) == 6
        assert await process.terminate() == 0
    assert (await _run(*command)).returncode == 0
    assert _rows(dsn) == before


async def test_name_that_no_projection_has_is_refused_with_those_that_there_are(
    migrated_postgres_dsn: str,
) -> None:
    refused = await _run("rebuild", "effects", "--postgres-dsn", migrated_postgres_dsn)
    assert refused.returncode == 2
    assert refused.stderr == (
        "aetheris-server: no projection is named 'effects'; there are: executions\n"
    )


async def test_rebuild_without_a_database_says_which_setting_is_missing() -> None:
    refused = await _run("rebuild", "executions")
    assert refused.returncode == 2
    assert "postgres.dsn: expected a value, found none; give --postgres-dsn" in refused.stderr
