"""The schema's migrations: the numbered files in `migrations/`, applied once each, in order.

A file never changes once it is released: its checksum is kept with its number in
`schema_migrations`. Row 0 stands for that table itself and is the lock that lets one process
migrate at a time; that table is made under an advisory lock, since it has no row yet to lock.
"""

import asyncio
import re
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from typing import Final

from aetheris_server.config import ConfigError, PostgresSettings
from aetheris_server.storage.database import Connection, Database, Row, conninfo_of, storage_errors
from aetheris_server.storage.requirements import check_database

_TIMEOUT: Final = 600.0
_FILE_NAME = re.compile(r"(\d{3})_(\w+)\.sql")
_KEY = "postgres.dsn"

# Of the transaction, so that a pooler in between cannot keep it. The number is ours alone.
_LOCK_DATABASE = "SELECT pg_advisory_xact_lock(7238163400191)"
_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    number integer PRIMARY KEY,
    name text NOT NULL,
    checksum text NOT NULL,
    apply_time timestamptz NOT NULL DEFAULT now()
)
"""
_CREATE_LOCK = """
INSERT INTO schema_migrations (number, name, checksum) VALUES (0, 'schema_migrations', '')
ON CONFLICT (number) DO NOTHING
"""
_LOCK = "SELECT number FROM schema_migrations WHERE number = 0 FOR UPDATE"
_LOAD = "SELECT number, name, checksum FROM schema_migrations WHERE number > 0 ORDER BY number"
_RECORD = "INSERT INTO schema_migrations (number, name, checksum) VALUES (%s, %s, %s)"
_TABLE_EXISTS = "SELECT to_regclass('schema_migrations') IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. Its statements run in one transaction."""

    number: int
    name: str
    text: bytes

    @property
    def checksum(self) -> str:
        return sha256(self.text).hexdigest()


async def migrate(dsn: str) -> list[str]:
    """Bring the schema up to date. Safe to run from several processes at once.

    Returns:
        The names of the migrations applied, `001_tables`, in order; empty where all were.

    Raises:
        ConfigError: The schema is newer than this program, a migration's file has changed since, or
            the database cannot be ours.
        StorageUnavailableError: Postgres does not answer, or refuses a migration; those before it
            stay.
        UnstorableError: A migration does not fit what is stored; those before it stay.
    """
    settings = PostgresSettings(dsn=dsn)
    await check_database(settings)
    conninfo = conninfo_of(settings)
    with storage_errors():
        async with asyncio.timeout(_TIMEOUT):
            async with await Connection.connect(conninfo, autocommit=True) as connection:
                await _create_table(connection)
                applied: list[str] = []
                while (name := await _apply_next(connection)) is not None:
                    applied.append(name)
                return applied


async def check_schema(db: Database) -> None:
    """Check that the schema is the one that this program was written for.

    Raises:
        ConfigError: It is older, newer or altered; the message says what to do.
        StorageUnavailableError: Postgres does not answer.
    """
    is_there = (await db.fetch(_TABLE_EXISTS))[0][0]
    pending = _find_pending(await db.fetch(_LOAD) if is_there else [])
    if pending:
        raise ConfigError(
            _KEY,
            f"expected the schema at {pending[-1].name}, found it without {pending[0].name};"
            " run aetheris-server migrate",
        )


@cache
def load_migrations() -> tuple[Migration, ...]:
    """The files, in order; their numbers are 1, 2, 3 and so on."""
    found: list[Migration] = []
    for file in (resources.files("aetheris_server.storage") / "migrations").iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match is not None:
            found.append(
                Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_bytes())
            )
    found.sort(key=lambda migration: migration.number)
    assert [migration.number for migration in found] == list(range(1, len(found) + 1))
    return tuple(found)


async def _create_table(connection: Connection) -> None:
    # IF NOT EXISTS is no lock: two sessions that make a table at once may both find none, and one
    # then fails on whichever catalog it comes to second (the table, its type, its index).
    async with connection.transaction():
        await connection.execute(_LOCK_DATABASE)
        await connection.execute(_CREATE_TABLE)
        await connection.execute(_CREATE_LOCK)


async def _apply_next(connection: Connection) -> str | None:
    """Apply the first migration that is missing, and return its name; None where none is."""
    async with connection.transaction():
        await connection.execute(_LOCK)
        cursor = await connection.execute(_LOAD)
        pending = _find_pending(await cursor.fetchall())
        if not pending:
            return None
        migration = pending[0]
        await connection.execute(migration.text)
        await connection.execute(_RECORD, (migration.number, migration.name, migration.checksum))
        return migration.name


def _find_pending(applied: list[Row]) -> tuple[Migration, ...]:
    known = load_migrations()
    for index, (number, name, checksum) in enumerate(applied):
        if index >= len(known):
            raise ConfigError(
                _KEY,
                f"the schema is newer than this program: expected none after"
                f" {known[-1].name}, found {name}; upgrade this program",
            )
        expected = known[index]
        if (number, checksum) != (expected.number, expected.checksum):
            raise ConfigError(
                _KEY,
                f"migration {name} was applied with checksum {checksum[:12]}, this program's has"
                f" {expected.checksum[:12]}; a released migration must not change",
            )
    return known[len(applied) :]
