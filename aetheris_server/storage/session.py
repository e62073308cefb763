"""One connection of the caller's own: for work that must see one moment of the database, or that
has tables of its own there.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString, TypeVar

from psycopg import AsyncRawCursor, sql
from psycopg.adapt import Dumper
from psycopg.pq import Format

from aetheris_server.errors import AetherisError
from aetheris_server.storage.database import (
    GRACE,
    Connection,
    Database,
    Parameters,
    Row,
    storage_errors,
)
from aetheris_server.storage.metrics import STATEMENTS
from aetheris_server.storage.row_changes import RowStatement

R = TypeVar("R")

Query = LiteralString | sql.SQL | sql.Composed


class _Column(bytes):
    """A parameter that is in binary form already."""


class _ColumnDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: _Column) -> bytes:
        return obj


class Session:
    """One connection, for one caller at a time. Each call has the deadline of the database's."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout
        connection.adapters.register_dumper(_Column, _ColumnDumper)

    @asynccontextmanager
    async def transaction(self, *, is_snapshot: bool) -> AsyncGenerator[None]:
        """All that is written in the block, or nothing.

        Args:
            is_snapshot: Whether every statement sees the same moment, and what this one wrote; else
                each sees what is committed by then, also a row that it has waited for.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        level = "REPEATABLE READ" if is_snapshot else "READ COMMITTED"
        await self.change(f"BEGIN ISOLATION LEVEL {level}")
        try:
            yield
        except BaseException:
            # Or the connection is gone, and the transaction with it.
            with suppress(AetherisError):
                await self.change("ROLLBACK")
            raise
        await self.change("COMMIT")

    async def fetch(self, query: Query, parameters: Parameters = ()) -> list[Row]:
        """Run one statement; its rows.

        Raises:
            StorageUnavailableError: Postgres did not answer, or refused the statement.
            UnstorableError: It refused a value.
        """
        with storage_errors():
            async with asyncio.timeout(self._timeout):
                cursor = self._connection.cursor(binary=True)
                STATEMENTS.inc()
                await cursor.execute(query, parameters or None)
                return await cursor.fetchall() if cursor.description is not None else []

    async def change(self, query: Query, parameters: Parameters = ()) -> int:
        """Run one statement that writes; the number of rows that it wrote.

        Raises:
            StorageUnavailableError: Postgres did not answer, or refused the statement.
            UnstorableError: It refused a value.
        """
        with storage_errors():
            async with asyncio.timeout(self._timeout):
                STATEMENTS.inc()
                cursor = await self._connection.execute(query, parameters or None)
                return cursor.rowcount

    async def write(self, statement: RowStatement[R], rows: Sequence[R]) -> None:
        """Write rows as the write path does.

        Raises:
            StorageUnavailableError: Postgres did not answer, or refused the statement.
            UnstorableError: It refused a value.
        """
        columns = [_Column(column) for column in statement.columns_of(rows)]
        with storage_errors():
            async with asyncio.timeout(self._timeout):
                STATEMENTS.inc()
                await AsyncRawCursor[Any](self._connection).execute(statement.sql, columns)


@asynccontextmanager
async def open_session(db: Database) -> AsyncGenerator[Session]:
    """A connection that is closed when the block is left.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    with storage_errors():
        async with asyncio.timeout(db.timeout):
            connection = await db.connect()
    try:
        yield Session(connection, db.timeout + GRACE)
    finally:
        await connection.close()
