import asyncio
from collections.abc import AsyncIterator
from typing import LiteralString

import psycopg
import pytest

from aetheris_server.config import ConfigError, PostgresSettings
from aetheris_server.errors import StorageUnavailableError, UnstorableError
from aetheris_server.storage.database import Database
from aetheris_server.storage.migrate import (
    _RECORD,
    _create_table,
    check_schema,
    load_migrations,
    migrate,
)

pytestmark = pytest.mark.integration

ROUNDS = 40
NAMES = [migration.name for migration in load_migrations()]


@pytest.fixture
async def empty_db(postgres_dsn: str) -> AsyncIterator[Database]:
    async with Database(PostgresSettings(dsn=postgres_dsn)) as database:
        yield database


async def execute(dsn: str, statement: LiteralString) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(statement)


async def test_migrate_applies_each_file_once(postgres_dsn: str, empty_db: Database) -> None:
    assert await migrate(postgres_dsn) == NAMES
    assert await migrate(postgres_dsn) == []
    await check_schema(empty_db)


async def test_migrate_many_first_ones_at_once_apply_each_file_once(
    postgres_dsn: str, empty_db: Database
) -> None:
    # Which catalog two of them collide on is a matter of microseconds, hence the rounds.
    for _ in range(ROUNDS):
        applied = await asyncio.gather(*(migrate(postgres_dsn) for _ in range(8)))

        assert sorted(name for names in applied for name in names) == NAMES
        await check_schema(empty_db)
        await execute(postgres_dsn, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")


async def test_check_schema_of_an_empty_database_says_migrate(empty_db: Database) -> None:
    with pytest.raises(ConfigError, match="run aetheris-server migrate"):
        await check_schema(empty_db)


async def test_check_schema_with_one_missing_names_it(
    migrated_postgres_dsn: str, db: Database
) -> None:
    await execute(migrated_postgres_dsn, "DELETE FROM schema_migrations WHERE number >= 2")

    with pytest.raises(ConfigError, match=f"without {NAMES[1]}; run aetheris-server migrate"):
        await check_schema(db)


async def test_migrate_schema_newer_than_the_program_is_refused(
    migrated_postgres_dsn: str, db: Database
) -> None:
    await execute(
        migrated_postgres_dsn,
        "INSERT INTO schema_migrations (number, name, checksum) VALUES (999, '999_future', 'x')",
    )

    for attempt in (migrate(migrated_postgres_dsn), check_schema(db)):
        with pytest.raises(ConfigError, match=r"newer than this program.*999_future"):
            await attempt


async def test_migrate_changed_file_is_refused(migrated_postgres_dsn: str, db: Database) -> None:
    await execute(
        migrated_postgres_dsn, "UPDATE schema_migrations SET checksum = 'other' WHERE number = 1"
    )

    for attempt in (migrate(migrated_postgres_dsn), check_schema(db)):
        with pytest.raises(ConfigError, match="001_tables was applied with checksum other"):
            await attempt


async def test_migrate_that_fails_leaves_nothing_of_its_file(
    postgres_dsn: str, empty_db: Database
) -> None:
    await execute(postgres_dsn, "CREATE TABLE snapshots ()")

    with pytest.raises(StorageUnavailableError, match="snapshots"):
        await migrate(postgres_dsn)

    assert await empty_db.fetch("SELECT to_regclass('executions')") == [(None,)]


_LOG_ROWS: LiteralString = """
INSERT INTO log (
    shard_id, shard_seq, namespace_id, run_id, run_seq, first_event_id, event_count, record, hash
) SELECT 1, n, r, r, greatest(n - %s, 1), n, 1, 'record', 'hash'
FROM generate_series(1, 100) AS n, (SELECT gen_random_uuid() AS r) AS run
"""


async def _before(dsn: str, number: int) -> None:
    """The schema as it was before a migration."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await _create_table(connection)
        for migration in load_migrations()[: number - 1]:
            await connection.execute(migration.text)
            await connection.execute(
                _RECORD, (migration.number, migration.name, migration.checksum)
            )


async def test_unique_records_of_a_log_that_is_whole_are_migrated(
    postgres_dsn: str, empty_db: Database
) -> None:
    await _before(postgres_dsn, 4)
    await empty_db.fetch(_LOG_ROWS, [0])

    assert await migrate(postgres_dsn) == NAMES[3:]

    indexes = await empty_db.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'log'")
    assert sorted(indexes) == [("log_pkey",), ("log_run",)]


async def test_log_that_has_a_record_twice_is_not_migrated_and_the_run_is_named(
    postgres_dsn: str, empty_db: Database
) -> None:
    await _before(postgres_dsn, 4)
    await empty_db.fetch(_LOG_ROWS, [1])
    ((run_id,),) = await empty_db.fetch("SELECT DISTINCT run_id::text FROM log")

    with pytest.raises(UnstorableError, match=rf"\({run_id}, 1, 1\) is duplicated"):
        await migrate(postgres_dsn)

    assert await empty_db.fetch("SELECT max(number) FROM schema_migrations") == [(3,)]


async def test_every_unique_index_of_a_sharded_table_contains_the_shard(db: Database) -> None:
    rows = await db.fetch(
        "SELECT indexdef FROM pg_indexes"
        " WHERE tablename IN ('log', 'executions', 'snapshots', 'shards')"
        " AND indexdef LIKE 'CREATE UNIQUE%%'"
    )

    assert len(rows) == 5
    assert all("shard_id" in definition for (definition,) in rows)


async def test_database_that_does_not_answer_is_unavailable() -> None:
    settings = PostgresSettings(dsn="postgresql://nobody@127.0.0.1:1/none", statement_timeout=0.5)

    with pytest.raises(StorageUnavailableError):
        async with Database(settings):
            pass


def test_dsn_that_cannot_be_parsed_is_a_config_error_without_it() -> None:
    with pytest.raises(ConfigError) as caught:
        Database(PostgresSettings(dsn="host=h password=geheim nonsense"))

    assert caught.value.key == "postgres.dsn"
    assert "geheim" not in str(caught.value)
