"""A projection that only a test knows: through the engine, Postgres, a rebuild and a check."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from aetheris_server.clock import SystemClock
from aetheris_server.config import PostgresSettings
from aetheris_server.history.projections.errors import OutOfStepError
from aetheris_server.history.rebuild import check, rebuild
from aetheris_server.storage.database import Database
from tests.support.attempts_table import ATTEMPTS, CREATE, INSERT, UPDATE, attempts_projected
from tests.support.history_host import history_bench
from tests.support.varied_runs import VariedRuns

pytestmark = pytest.mark.integration


@pytest.fixture
def dsn(migrated_postgres_dsn: str) -> Iterator[str]:
    """A database that has its table."""
    _run(migrated_postgres_dsn, CREATE)
    with attempts_projected():
        yield migrated_postgres_dsn


def _run(dsn: str, statement: bytes) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)


def _rows(dsn: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT e.workflow_id, a.activity_id, a.failed_count, a.last_failure"
            " FROM attempts a JOIN executions e ON e.run_id = a.run_id ORDER BY 1"
        ).fetchall()


async def _rebuild(dsn: str) -> int:
    async with Database(PostgresSettings(dsn=dsn)) as db:
        return (await rebuild(db, ATTEMPTS, SystemClock(), lambda _: None)).row_count


async def test_rows_are_written_with_their_records_and_made_again_from_them(dsn: str) -> None:
    async with history_bench(dsn) as bench:
        await VariedRuns(bench).make_all()
    expected = [
        ("backs-off", "a", 1, "oops"),
        ("completed", "a", 1, "oops"),
        ("has-worker", "a", 0, None),
    ]
    assert _rows(dsn) == expected
    assert await _rebuild(dsn) == 0
    _run(dsn, b"DELETE FROM attempts WHERE last_failure IS NULL")
    _run(dsn, b"UPDATE attempts SET last_failure = 'x' WHERE failed_count = 1")
    _run(dsn, b"INSERT INTO attempts SELECT shard_id, run_id, 99, 'b', 0 FROM attempts")
    lines: list[str] = []
    async with Database(PostgresSettings(dsn=dsn)) as db:
        with pytest.raises(OutOfStepError) as caught:
            await check(db, ATTEMPTS, SystemClock(), lines.append)
    assert caught.value.row_count == 5
    assert sum("expected one, found none" in line for line in lines) == 1
    assert sum("expected none, found one" in line for line in lines) == 2
    assert sum("last_failure: expected 'oops', found 'x'" in line for line in lines) == 2
    assert await _rebuild(dsn) == 5
    assert _rows(dsn) == expected


async def test_run_without_what_is_projected_costs_no_row_and_no_statement(dsn: str) -> None:
    async with history_bench(dsn) as bench:
        runs = VariedRuns(bench)
        await runs.start("w")
        await runs.signal("w")
        written = bench.engine.writer.row_counts
        assert not written[INSERT]
        assert not written[UPDATE]
    assert _rows(dsn) == []
