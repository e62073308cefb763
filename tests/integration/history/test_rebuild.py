"""`executions`, made again from the log and held against the live one."""

import asyncio
import itertools
import secrets
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from aetheris_server.clock import SystemClock
from aetheris_server.config import PostgresSettings
from aetheris_server.errors import ShardLostError
from aetheris_server.history import rebuild as rebuild_module
from aetheris_server.history.projections.errors import (
    BrokenRunsError,
    OutOfStepError,
    ServersRunningError,
)
from aetheris_server.history.projections.registry import PROJECTIONS
from aetheris_server.history.rebuild import Outcome, check, rebuild
from aetheris_server.loops import end_tasks
from aetheris_server.storage.commit import CommitBatch, LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.hosts import register_host
from aetheris_server.storage.rebuild import MadeTable
from aetheris_server.storage.shards import acquire_shards
from tests.integration.storage.rows import log_row
from tests.support.databases import create_database, database_name, drop_database
from tests.support.history_host import history_bench
from tests.support.raw import seconds
from tests.support.stores import SessionStores
from tests.support.varied_runs import VariedRuns

pytestmark = pytest.mark.integration

EXECUTIONS = PROJECTIONS.find("executions")


_REPEAT = "(SELECT run_id FROM executions WHERE workflow_id = 'repeated' AND status = 1)"
# Of runs that are open: what a host writes when it has another reason to, or what a flag is for.
_LAGGING = {"history_length", "history_bytes", "wake_time", "owes"}


async def _check(dsn: str, lines: list[str] | None = None) -> Outcome:
    async with Database(PostgresSettings(dsn=dsn)) as db:
        say = lines.append if lines is not None else lambda _: None
        return await check(db, EXECUTIONS, SystemClock(), say)


async def _rebuild(dsn: str, lines: list[str] | None = None) -> Outcome:
    async with Database(PostgresSettings(dsn=dsn)) as db:
        say = lines.append if lines is not None else lambda _: None
        return await rebuild(db, EXECUTIONS, SystemClock(), say)


def _change(dsn: str, statement: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(statement.encode()).rowcount


def _rows(dsn: str) -> dict[str, dict[str, Any]]:
    with psycopg.connect(dsn) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute("SELECT * FROM executions").fetchall()
    return {str(row["run_id"]): row for row in rows}


@pytest.fixture(scope="module")
def filled_template(
    stores: SessionStores, session_name: str, migrated_template: str
) -> Iterator[str]:
    """The name of a database that a host has left, with runs of every kind; to be copied."""

    async def fill(dsn: str) -> None:
        async with history_bench(dsn) as bench:
            await VariedRuns(bench).make_all()

    name = database_name(session_name, "filled")
    asyncio.run(fill(create_database(stores.postgres_dsn, name, migrated_template)))
    yield name
    drop_database(stores.postgres_dsn, name)


@pytest.fixture
def dsn(stores: SessionStores, session_name: str, filled_template: str) -> Iterator[str]:
    """A database with these runs, for this test alone."""
    name = database_name(session_name, secrets.token_hex(4))
    yield create_database(stores.postgres_dsn, name, filled_template)
    drop_database(stores.postgres_dsn, name)


async def test_table_is_as_the_log_says_while_a_host_runs_and_after(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn, snapshot_interval_records=16) as bench:
        count = await VariedRuns(bench).make_all()
        assert (await _check(migrated_postgres_dsn)).run_count == count
    assert (await _check(migrated_postgres_dsn)).run_count == count


async def test_check_beside_a_host_that_writes_all_the_time_finds_nothing(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "_GROUP_RUNS", 5)
    async with history_bench(migrated_postgres_dsn) as bench:
        runs = VariedRuns(bench)
        for number in range(5):
            await runs.start(f"w-{number}")

        async def write() -> None:
            for number in itertools.count():
                await runs.signal(f"w-{number % 5}")
                if number % 10 == 0:
                    await runs.start(f"t-{number}", workflow_run_timeout=seconds(5))
                    bench.advance(1)

        writing = asyncio.create_task(write())
        counts = [(await _check(migrated_postgres_dsn)).run_count for _ in range(5)]
        await end_tasks([writing])
        assert counts[-1] > counts[0]


async def test_table_that_was_emptied_is_made_again_as_it_was(dsn: str) -> None:
    live = _rows(dsn)
    _change(dsn, "TRUNCATE executions")
    assert (await _rebuild(dsn)).row_count == len(live)
    made = _rows(dsn)
    assert made.keys() == live.keys()
    for run_id, row in live.items():
        again = made[run_id]
        differing = {name for name in row if again[name] != row[name]}
        assert differing <= (_LAGGING if row["close_time"] is None else set()), row["workflow_id"]
    assert (await _check(dsn)).run_count == len(live)


async def test_table_that_is_made_again_twice_is_written_once(dsn: str) -> None:
    await _rebuild(dsn)
    assert (await _rebuild(dsn)).row_count == 0


def _update(column: str, value: str, workflow_id: str) -> tuple[str, str]:
    return f"UPDATE executions SET {column} = {value} WHERE workflow_id = '{workflow_id}'", column


@pytest.mark.parametrize(
    "damage, column",
    [
        _update("status", "2", "failed"),
        _update("status", "5", "delayed"),
        _update("close_time", "now()", "failed"),
        _update("close_time", "NULL", "failed"),
        _update("workflow_type", "'x'", "failed"),
        _update("workflow_id", "'x'", "failed"),
        _update("memo", "NULL", "backs-off"),
        _update("search_attributes", "'{}'", "backs-off"),
        _update("history_length", "1", "failed"),
        _update("wake_time", "NULL", "signalled"),
        _update("wake_time", "wake_time + '1 us'", "delayed"),
        _update("owes", "false", "only-started"),
        ("UPDATE executions SET repeats_id = false WHERE run_id = " + _REPEAT, "repeats_id"),
        ("DELETE FROM executions WHERE workflow_id = 'completed'", "expected one, found none"),
    ],
)
async def test_row_that_is_at_fault_is_named_and_mended(dsn: str, damage: str, column: str) -> None:
    # So that no run is named by the log behind it.
    _change(dsn, "UPDATE shards SET watermark = 1000000")
    await _rebuild(dsn)
    before = _rows(dsn)
    assert _change(dsn, damage) == 1
    lines: list[str] = []
    with pytest.raises(OutOfStepError) as caught:
        await _check(dsn, lines)
    assert (caught.value.row_count, caught.value.broken_count) == (1, 0)
    (differing,) = (line for line in lines if line.startswith("differs: run "))
    assert column in differing
    assert (await _rebuild(dsn)).row_count == 1
    assert _rows(dsn) == before


@pytest.mark.parametrize(
    "lag, column",
    [
        _update("wake_time", "wake_time - interval '1 h'", "signalled"),
        _update("wake_time", "now()", "failed"),
        _update("owes", "true", "failed"),
        _update("history_length", "2", "signalled"),
        _update("history_bytes", "9", "signalled"),
        _update("repeats_id", "true", "failed"),
    ],
)
async def test_row_that_lags_by_design_is_in_step(dsn: str, lag: str, column: str) -> None:
    assert _change(dsn, lag) == 1, column
    await _check(dsn)


async def test_run_that_owes_needs_no_flag_while_the_log_behind_the_watermark_names_it(
    dsn: str,
) -> None:
    _change(dsn, "UPDATE executions SET owes = false")
    _change(dsn, "UPDATE shards SET watermark = 0")
    await _check(dsn)


_RUN = "(SELECT run_id FROM executions WHERE workflow_id = 'completed')"


@pytest.mark.parametrize(
    "damage",
    [
        f"DELETE FROM log WHERE run_id = {_RUN} AND run_seq = 1",
        f"DELETE FROM log WHERE run_id = {_RUN} AND run_seq = 3",
        f"DELETE FROM log WHERE run_id = {_RUN}",
        f"DELETE FROM log WHERE run_id = {_RUN} AND run_seq > 5",
        f"UPDATE log SET record = 'x' WHERE run_id = {_RUN} AND run_seq = 2",
        f"UPDATE log SET hash = 'x' WHERE run_id = {_RUN} AND run_seq = 2",
        "UPDATE executions SET history_length = 99 WHERE workflow_id = 'completed'",
    ],
)
async def test_run_whose_log_is_broken_is_named_and_keeps_its_row_while_others_are_mended(
    dsn: str, damage: str
) -> None:
    await _rebuild(dsn)
    _change(dsn, damage)
    _change(dsn, "UPDATE executions SET task_queue = 'x' WHERE workflow_id ~ 'completed|failed'")
    before = _rows(dsn)
    lines: list[str] = []
    with pytest.raises(OutOfStepError) as differing:
        await _check(dsn, lines)
    assert (differing.value.row_count, differing.value.broken_count) == (1, 1)
    with pytest.raises(BrokenRunsError) as caught:
        await _rebuild(dsn, lines)
    assert caught.value.broken_count == 1
    (run_id,) = (run_id for run_id, row in before.items() if row["workflow_id"] == "completed")
    assert sum(f"cannot be read: run {run_id}" in line for line in lines) == 2
    changed = {run_id for run_id, row in _rows(dsn).items() if row != before[run_id]}
    assert {before[run_id]["workflow_id"] for run_id in changed} == {"failed"}


@pytest.mark.parametrize("rows, chunk_bytes", [(1, 1 << 20), (1_000, 1), (7, 1 << 20)])
async def test_runs_that_are_read_in_parts_are_made_the_same(
    dsn: str, monkeypatch: pytest.MonkeyPatch, rows: int, chunk_bytes: int
) -> None:
    await _rebuild(dsn)
    before = _rows(dsn)
    _change(dsn, "TRUNCATE executions")
    monkeypatch.setattr(rebuild_module, "_GROUP_RUNS", 1)
    monkeypatch.setattr(rebuild_module, "_GROUP_BYTES", chunk_bytes)
    monkeypatch.setattr(rebuild_module, "_CHUNK_ROWS", rows)
    monkeypatch.setattr(rebuild_module, "_PART_ROWS", 10)
    assert (await _rebuild(dsn)).row_count == len(before)
    assert _rows(dsn) == before


async def test_nothing_is_made_while_a_host_runs(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await VariedRuns(bench).start("w")
        _change(migrated_postgres_dsn, "UPDATE executions SET workflow_type = 'x'")
        with pytest.raises(ServersRunningError) as caught:
            await _rebuild(migrated_postgres_dsn)
    assert caught.value.addresses == ("bench:1",)
    assert [row["workflow_type"] for row in _rows(migrated_postgres_dsn).values()] == ["x"]
    assert (await _rebuild(migrated_postgres_dsn)).row_count == 1


async def test_host_that_lost_its_lease_and_lives_can_write_no_more(dsn: str) -> None:
    async with Database(PostgresSettings(dsn=dsn)) as db:
        assert await register_host(db, "paused", "paused:1", lease_timeout=0)
        held = await acquire_shards(db, "paused", [0], lambda *_: (b"note", b"hash"))
        await _rebuild(dsn)
        writer = LogWriter(db, PROJECTIONS.statements)
        with pytest.raises(ShardLostError):
            await writer.commit(CommitBatch(log=[log_row(0, held[0].next_shard_seq)]))
        await writer.close()
    async with history_bench(dsn) as bench:
        await VariedRuns(bench).signal("signalled")
    await _check(dsn)


async def test_host_that_is_taking_a_shard_ends_it_once_it_has_it(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = MadeTable.hold

    async def hold_behind_another(made: MadeTable, *owner: Any) -> bool:
        async with await psycopg.AsyncConnection.connect(dsn) as taking:
            await taking.execute("UPDATE shards SET range_id = range_id + 1")
            holding = asyncio.create_task(hold(made, *owner))
            async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as looking:

                async def is_waiting() -> bool:
                    cursor = await looking.execute("SELECT FROM pg_locks WHERE NOT granted")
                    return cursor.rowcount > 0

                while not await is_waiting():
                    assert not holding.done()
        return await holding

    monkeypatch.setattr(MadeTable, "hold", hold_behind_another)
    with pytest.raises(
        ServersRunningError, match="a server or another rebuild began; it took shard"
    ):
        await _rebuild(dsn)


async def test_host_that_begins_meanwhile_ends_it_and_finds_each_row_old_or_made(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _change(dsn, "UPDATE executions SET task_queue = 'x'")
    monkeypatch.setattr(rebuild_module, "_GROUP_RUNS", 1)
    hold, holds = MadeTable.hold, 0

    async def slow_hold(made: MadeTable, *owner: Any) -> bool:
        nonlocal holds
        holds += 1
        if holds == 3:
            await beginning.enter_async_context(history_bench(dsn))
        return await hold(made, *owner)

    async with AsyncExitStack() as beginning:
        monkeypatch.setattr(MadeTable, "hold", slow_hold)
        with pytest.raises(ServersRunningError) as caught:
            await _rebuild(dsn)
        assert caught.value.addresses == ("bench:1",)
    queues = [row["task_queue"] for row in _rows(dsn).values()]
    assert sorted(set(queues)) == ["queue", "x"]
    assert queues.count("queue") == 2
    await _rebuild(dsn)
    await _check(dsn)
