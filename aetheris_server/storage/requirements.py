"""What a database must be like: its encoding, and a connection that stays the same session.

Checked at each start and before a migration, so that what would lose or refuse data later is said
at once. Errors of the network are the caller's `storage_errors`.
"""

import asyncio
from typing import Final

from aetheris_server.config import ConfigError, PostgresSettings
from aetheris_server.storage.database import Connection, conninfo_of, storage_errors

_KEY: Final = "postgres.dsn"
_TIMEOUT: Final = 20.0
# A pooler that has no second connection to the server to give lets us wait.
_SESSION_TIMEOUT: Final = 2.0
_ROUNDS: Final = 3
# SQL_ASCII stores any bytes as they are, and ours are UTF-8.
_ENCODINGS: Final = frozenset({"UTF8", "SQL_ASCII"})


async def check_database(settings: PostgresSettings) -> None:
    """Check that a database can be ours.

    Raises:
        ConfigError: It cannot; the message says what to do.
        StorageUnavailableError: Postgres does not answer.
    """
    conninfo = conninfo_of(settings)
    with storage_errors():
        async with asyncio.timeout(_TIMEOUT):
            async with await Connection.connect(conninfo, autocommit=True) as connection:
                await _check_encoding(connection)
                if await _is_pooled(connection):
                    await _check_session(connection, conninfo)


async def _check_encoding(connection: Connection) -> None:
    encoding = (await _fetch(connection, "SHOW server_encoding"))[0]
    if encoding not in _ENCODINGS:
        raise ConfigError(
            _KEY,
            f"expected a database with encoding UTF8, found {encoding}, which cannot hold every"
            " text; make one with: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        )


async def _is_pooled(connection: Connection) -> bool:
    """Whether a pooler is in between: it cannot know the server process that will do the work when
    it tells a client of one.
    """
    (pid,) = await _fetch(connection, "SELECT pg_backend_pid()")
    return pid != connection.pgconn.backend_pid


async def _check_session(connection: Connection, conninfo: str) -> None:
    """Check that what is set stays set while others work too."""
    try:
        async with asyncio.timeout(_SESSION_TIMEOUT):
            for number in range(_ROUNDS):
                await _fetch(
                    connection, "SELECT set_config('aetheris.session', %s, false)", str(number)
                )
                async with await Connection.connect(conninfo) as other:
                    # In a transaction it keeps the server's connection that it was given.
                    await _fetch(other, "SELECT 1")
                    (found,) = await _fetch(
                        connection, "SELECT current_setting('aetheris.session', true)"
                    )
                if found != str(number):
                    raise _pooled_error()
    except TimeoutError:
        raise _pooled_error() from None


def _pooled_error() -> ConfigError:
    return ConfigError(
        _KEY,
        "expected a connection that stays one session, found a pooler that shares connections"
        " between transactions, so that settings and prepared statements get lost; connect to"
        " Postgres directly, or through a pooler in session mode (PgBouncer: pool_mode = session)",
    )


async def _fetch(connection: Connection, query: str, *parameters: str) -> tuple[object, ...]:
    # Unprepared: a pooler may forget a statement before it is run.
    cursor = await connection.execute(query.encode(), parameters or None, prepare=False)
    row = await cursor.fetchone()
    assert row is not None
    return row
