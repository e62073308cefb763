"""What the write path does when its connection breaks at the worst moments."""

import asyncio
from collections.abc import AsyncIterator

import psycopg
import pytest

from aetheris_server.config import PostgresSettings
from aetheris_server.errors import ShardLostError, StorageUnavailableError
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import EXECUTION_STATEMENTS
from aetheris_server.storage.log import load_run
from aetheris_server.storage.shards import acquire_shards, ensure_cluster
from tests.integration.storage.rows import batch_of, log_row
from tests.support.cutting_proxy import CuttingProxy, postgres_proxy
from tests.support.wait import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.fault]


@pytest.fixture
async def proxied(migrated_postgres_dsn: str) -> AsyncIterator[tuple[CuttingProxy, LogWriter]]:
    """A writer with a connection, and the proxy that it goes through."""
    async with (
        postgres_proxy(migrated_postgres_dsn) as (proxy, dsn),
        Database(PostgresSettings(dsn=dsn, statement_timeout=20.0)) as db,
    ):
        writer = LogWriter(db, EXECUTION_STATEMENTS)
        await writer.commit(batch_of(log=[log_row(shard_id=9)]))
        yield proxy, writer
        await writer.close()


@pytest.fixture
async def blocker(migrated_postgres_dsn: str) -> AsyncIterator[psycopg.AsyncConnection]:
    """A connection for transactions that others have to wait for."""
    async with await psycopg.AsyncConnection.connect(migrated_postgres_dsn) as connection:
        yield connection


async def insert_log_row(
    connection: psycopg.AsyncConnection, shard_id: int, shard_seq: int
) -> None:
    await connection.execute(
        "INSERT INTO log (shard_id, shard_seq, run_seq, first_event_id, event_count, record, hash)"
        " VALUES (%s, %s, 0, 0, 0, 'theirs', 'theirs')",
        (shard_id, shard_seq),
    )


async def wait_for_lock_waits(db: Database, count: int = 1) -> None:
    """Wait until so many statements in this database wait for a lock."""

    async def are_waiting() -> bool:
        rows = await db.fetch(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return rows[0][0] >= count

    await wait_until(are_waiting, what=f"{count} statements that wait for a lock")


async def test_commit_reply_lost_finds_its_own_rows(
    db: Database, proxied: tuple[CuttingProxy, LogWriter]
) -> None:
    proxy, writer = proxied
    row = log_row()
    proxy.drops_next_reply = True

    await writer.commit(batch_of(log=[row]))

    assert not proxy.drops_next_reply
    assert writer.retry_count >= 1
    assert len(await load_run(db, 1, row.run_id)) == 1


async def test_commit_reply_lost_and_shard_taken_meanwhile_reports_what_happened(
    db: Database, proxied: tuple[CuttingProxy, LogWriter]
) -> None:
    proxy, writer = proxied
    await ensure_cluster(db, 2)
    row = log_row()
    proxy.drops_next_reply = True
    await writer.commit(batch_of(log=[row]))
    await acquire_shards(db, "other", [1], lambda *_: (b"note", b"hash"))

    with pytest.raises(ShardLostError):
        await writer.commit(batch_of(log=[log_row(1, 2)]))


async def test_commit_idle_connection_cut_reconnects(
    db: Database, proxied: tuple[CuttingProxy, LogWriter]
) -> None:
    proxy, writer = proxied
    proxy.cut()
    row = log_row()

    await writer.commit(batch_of(log=[row]))

    assert len(await load_run(db, 1, row.run_id)) == 1


async def test_commit_server_away_for_a_moment_waits_for_it(
    db: Database, proxied: tuple[CuttingProxy, LogWriter]
) -> None:
    proxy, writer = proxied
    proxy.is_refusing = True
    proxy.cut()
    row = log_row()
    commit = asyncio.create_task(writer.commit(batch_of(log=[row])))
    await wait_until(lambda: writer.retry_count >= 2)

    proxy.is_refusing = False
    await commit

    assert len(await load_run(db, 1, row.run_id)) == 1


async def test_commit_cut_while_the_server_works_on_it_is_written_once(
    db: Database, proxied: tuple[CuttingProxy, LogWriter], blocker: psycopg.AsyncConnection
) -> None:
    proxy, writer = proxied
    await insert_log_row(blocker, shard_id=1, shard_seq=1)
    row = log_row()
    commit = asyncio.create_task(writer.commit(batch_of(log=[row])))
    await wait_for_lock_waits(db)
    proxy.cut()
    # The first attempt is still at work, and the second waits beside it.
    await wait_for_lock_waits(db, count=2)

    await blocker.rollback()
    await commit

    assert len(await load_run(db, 1, row.run_id)) == 1


async def test_commit_cancelled_leaves_the_writer_usable(
    db: Database, writer: LogWriter, blocker: psycopg.AsyncConnection
) -> None:
    await insert_log_row(blocker, shard_id=1, shard_seq=1)
    commit = asyncio.create_task(writer.commit(batch_of(log=[log_row()])))
    await wait_for_lock_waits(db)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit

    row = log_row(shard_id=2)
    await writer.commit(batch_of(log=[row]))

    assert len(await load_run(db, 2, row.run_id)) == 1


async def test_commit_past_its_deadline_is_unavailable(
    migrated_postgres_dsn: str, blocker: psycopg.AsyncConnection
) -> None:
    await insert_log_row(blocker, shard_id=1, shard_seq=1)
    async with Database(PostgresSettings(dsn=migrated_postgres_dsn, statement_timeout=0.3)) as db:
        writer = LogWriter(db, EXECUTION_STATEMENTS)

        with pytest.raises(StorageUnavailableError):
            await writer.commit(batch_of(log=[log_row()]))

        await writer.close()


async def test_acquire_during_a_batch_in_flight_that_commits_goes_behind_it(
    db: Database, blocker: psycopg.AsyncConnection
) -> None:
    await ensure_cluster(db, 2)
    await insert_log_row(blocker, shard_id=1, shard_seq=1)
    acquire = asyncio.create_task(acquire_shards(db, "h", [0, 1], lambda *_: (b"note", b"hash")))
    await wait_for_lock_waits(db)

    await blocker.commit()

    assert [(shard.shard_id, shard.next_shard_seq) for shard in await acquire] == [(0, 2), (1, 3)]


async def test_acquire_during_a_batch_in_flight_that_fails_takes_its_place(
    db: Database, blocker: psycopg.AsyncConnection
) -> None:
    await ensure_cluster(db, 2)
    await insert_log_row(blocker, shard_id=1, shard_seq=1)
    acquire = asyncio.create_task(acquire_shards(db, "h", [1], lambda *_: (b"note", b"hash")))
    await wait_for_lock_waits(db)

    await blocker.rollback()

    assert [shard.next_shard_seq for shard in await acquire] == [2]


async def test_acquire_and_an_old_owner_in_a_deadlock_end_with_one_of_them(
    db: Database, blocker: psycopg.AsyncConnection
) -> None:
    await ensure_cluster(db, 2)
    await insert_log_row(blocker, shard_id=1, shard_seq=1)
    acquire = asyncio.create_task(acquire_shards(db, "h", [0, 1], lambda *_: (b"note", b"hash")))
    await wait_for_lock_waits(db)

    # The note of shard 0 waits for us no less than we now wait for it.
    try:
        await insert_log_row(blocker, shard_id=0, shard_seq=1)
        await blocker.commit()
    except psycopg.errors.DeadlockDetected:
        await blocker.rollback()

    assert [shard.shard_id for shard in await acquire] == [0, 1]


async def test_two_writers_race_for_a_number_and_one_wins(db: Database) -> None:
    writers = [LogWriter(db, EXECUTION_STATEMENTS), LogWriter(db, EXECUTION_STATEMENTS)]
    for seq in range(1, 30):
        results = await asyncio.gather(
            *(writer.commit(batch_of(log=[log_row(1, seq)])) for writer in writers),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in results) == [
            "NoneType",
            "ShardLostError",
        ]
    for writer in writers:
        await writer.close()


async def test_fetch_after_all_connections_were_cut_reconnects(migrated_postgres_dsn: str) -> None:
    async with (
        postgres_proxy(migrated_postgres_dsn) as (proxy, dsn),
        Database(PostgresSettings(dsn=dsn, statement_timeout=20.0)) as db,
    ):
        await db.ping()
        proxy.cut()

        assert await db.ping() > 0


async def test_ping_server_gone_is_unavailable(migrated_postgres_dsn: str) -> None:
    async with (
        postgres_proxy(migrated_postgres_dsn) as (proxy, dsn),
        Database(PostgresSettings(dsn=dsn, statement_timeout=1.0)) as db,
    ):
        proxy.is_refusing = True
        proxy.cut()

        with pytest.raises(StorageUnavailableError):
            await db.ping()
