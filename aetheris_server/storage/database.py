"""The connections to Postgres, their settings, and the one place that turns its errors into ours.

Reads and small transactions share a pool, where a statement commits by itself. The write path has
connections of its own (`PipelineConnection`), so that reads cannot hold it up. Every
call has a deadline, kept on both sides: the server's `statement_timeout` stops the work, ours the
wait.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, LiteralString, Protocol, Self, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from aetheris_server.config import ConfigError, PostgresSettings
from aetheris_server.errors import StorageUnavailableError, UnstorableError
from aetheris_server.loops import is_cancelled
from aetheris_server.storage.metrics import STATEMENTS
from aetheris_server.storage.pipeline import PipelineConnection

T = TypeVar("T")

Row = tuple[Any, ...]
Parameters = Sequence[object] | Mapping[str, object]
Connection = psycopg.AsyncConnection[Row]

GRACE = 2.0
"""Seconds over the server's own deadline, so that its error, which says more, comes first."""

# Of an attempt that meets silence; the next one may be answered, and all writes wait for it.
_CONNECT_TIMEOUT = 3
# A connection that is being made to a server that is silent does not hold up the end.
_CLOSE_TIMEOUT = 1.0
_TRANSACTION_ATTEMPTS = 5
# Every statement here has an index for its purpose. A plan that was made when the tables were
# small, and kept, must not scan them when they are large, nor a shard's whole log to make a bitmap
# of it. A store that knows none of these settings ignores them.
_SETTINGS = """
SELECT set_config(name, 'off', false) FROM pg_settings
WHERE name IN (
    'enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin', 'enable_mergejoin', 'jit'
)
"""
_SET_TIMEOUT = "SELECT set_config('statement_timeout', $1::text, false)"
# Names of prepared statements, apart from those of whoever asks for a connection.
_PLANNER, _TIMEOUT = b"planner", b"timeout"


# Classes of SQLSTATE that are the fault of what is written, not of Postgres: cardinality, data,
# integrity, and limits such as the size of an index entry.
_REFUSALS = frozenset({"21", "22", "23", "54"})


@contextmanager
def storage_errors() -> Generator[None]:
    """Raise what the driver, the network or a deadline raises as StorageUnavailableError, and as
    UnstorableError what Postgres says of a value or of its place among the rows.
    """
    try:
        yield
    except (psycopg.Error, OSError, TimeoutError) as error:
        if is_cancelled():
            # The pool and the driver wait by asyncio.wait_for, which turns a cancellation that
            # comes together with what it waits for into an error, or into nothing.
            raise asyncio.CancelledError from error
        if is_refusal(error):
            raise UnstorableError(f"postgres refuses a value: {error}") from error
        # Also wrong statements: the caller can do no more about those, and the log names them.
        problem = str(error).strip() or type(error).__name__
        code = error.sqlstate if isinstance(error, psycopg.Error) else None
        raise StorageUnavailableError(
            "postgres", f"{problem} ({code})" if code else problem
        ) from error


def is_refusal(error: Exception) -> bool:
    """Whether an error is about what was to be written: the same again fails again."""
    if isinstance(error, psycopg.DataError):
        # The driver's own have no SQLSTATE.
        return True
    return isinstance(error, psycopg.Error) and (error.sqlstate or "")[:2] in _REFUSALS


def is_connection_loss(error: psycopg.OperationalError) -> bool:
    """Whether an error means that the connection is gone or could not be made."""
    if isinstance(error, (PoolClosed, PoolTimeout, TooManyRequests)):
        return False
    # Classes of SQLSTATE: connection exception, operator intervention (shutdown, starting up).
    return error.sqlstate is None or error.sqlstate.startswith(("08", "57P"))


class Reader(Protocol):
    """Where statements are read from: a `Database`, or a session of one."""

    async def fetch(self, query: LiteralString, parameters: Parameters = ()) -> list[Row]:
        """Run one statement that reads; its rows.

        Raises:
            StorageUnavailableError: Postgres did not answer, or refused the statement.
        """
        ...


class Database:
    """One Postgres database. A context manager: connected on entry, closed on exit."""

    def __init__(self, settings: PostgresSettings) -> None:
        """Args:
        settings: Where it is; parameters that the DSN has itself win over those here.

        Raises:
            ConfigError: The DSN cannot be parsed.
        """
        self._timeout = settings.statement_timeout
        self._conninfo = conninfo_of(settings)
        self._pool = AsyncConnectionPool(
            self._conninfo,
            connection_class=Connection,
            kwargs={"autocommit": True},
            configure=self._configure,
            min_size=1,
            max_size=settings.pool_max_size,
            max_waiting=settings.pool_max_size * 100,
            timeout=settings.statement_timeout,
            reconnect_timeout=settings.statement_timeout,
            name="aetheris",
            open=False,
        )

    @property
    def timeout(self) -> float:
        """Seconds that one call may take."""
        return self._timeout

    async def open(self) -> None:
        """Connect.

        Raises:
            StorageUnavailableError: No connection within the time that one call may take.
        """
        try:
            with storage_errors():
                try:
                    await self._pool.open(wait=True, timeout=self._timeout)
                except PoolTimeout as error:
                    problem = f"no connection within {self._timeout:g} s; the log has what it met"
                    raise PoolTimeout(problem) from error
        except BaseException:
            await self._pool.close(_CLOSE_TIMEOUT)
            raise

    async def close(self) -> None:
        """Close the pool. Again is harmless."""
        await self._pool.close(_CLOSE_TIMEOUT)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def ping(self) -> float:
        """The seconds that a statement takes now.

        Raises:
            StorageUnavailableError: It does not answer.
        """
        start = time.monotonic()
        await self.fetch("SELECT 1")
        return time.monotonic() - start

    async def fetch(self, query: LiteralString, parameters: Parameters = ()) -> list[Row]:
        """Run one statement, a transaction of its own, that can be repeated without harm.

        It is repeated once where the connection was gone, as all are after the server restarts.

        Raises:
            StorageUnavailableError: Postgres did not answer, or refused the statement.
            UnstorableError: It refused a value.
        """
        with storage_errors():
            async with asyncio.timeout(self._timeout + GRACE):
                try:
                    return await self._fetch(query, parameters)
                except psycopg.OperationalError as error:
                    if not is_connection_loss(error):
                        raise
                    await self._pool.check()
                    return await self._fetch(query, parameters)

    async def _fetch(self, query: LiteralString, parameters: Parameters) -> list[Row]:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(binary=True)
            STATEMENTS.inc()
            await cursor.execute(query, parameters, prepare=True)
            return await cursor.fetchall() if cursor.description is not None else []

    async def run_transaction(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Run `work` in a transaction, again from its start where Postgres broke a deadlock by it.

        Raises:
            StorageUnavailableError: Postgres did not answer, or refused a statement. Where the
                connection was lost at its end, the transaction may have happened.
            UnstorableError: It refused a value; nothing was written.
        """
        with storage_errors():
            async with asyncio.timeout(self._timeout + GRACE):
                for _ in range(_TRANSACTION_ATTEMPTS - 1):
                    try:
                        return await self._run_once(work)
                    except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                        continue
                return await self._run_once(work)

    async def _run_once(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._pool.connection() as connection, connection.transaction():
            return await work(connection)

    async def connect(self) -> Connection:
        """Open a connection of the caller's own, configured like those of the pool.

        Within `storage_errors` and a deadline of the caller's.

        Raises:
            psycopg.Error: No connection.
        """
        connection = await Connection.connect(self._conninfo, autocommit=True)
        try:
            await self._configure(connection)
        except BaseException:
            await connection.close()
            raise
        return connection

    async def connect_pipeline(
        self, statements: Mapping[bytes, LiteralString]
    ) -> PipelineConnection:
        """Open a connection for the write path, with statements prepared under their names.

        Within `storage_errors` and a deadline of the caller's.

        Raises:
            psycopg.Error: No connection, or a statement is refused.
        """
        connection = await Connection.connect(self._conninfo, autocommit=True)
        pipeline = PipelineConnection(connection)
        try:
            # In the pipeline too: a statement outside it holds up its cancellation for seconds.
            await pipeline.prepare({_PLANNER: _SETTINGS, _TIMEOUT: _SET_TIMEOUT, **statements})
            await pipeline.run([(_PLANNER, []), (_TIMEOUT, [self._timeout_milliseconds])])
        except BaseException:
            pipeline.close()
            raise
        return pipeline

    async def _configure(self, connection: Connection) -> None:
        await connection.execute(_SETTINGS)
        await connection.execute(
            "SELECT set_config('statement_timeout', %s, false)",
            [self._timeout_milliseconds.decode()],
        )

    @property
    def _timeout_milliseconds(self) -> bytes:
        return b"%d" % int(self._timeout * 1000)


def conninfo_of(settings: PostgresSettings) -> str:
    """The connection string with our parameters added to those of the DSN.

    Raises:
        ConfigError: The DSN cannot be parsed.
    """
    defaults = {
        "application_name": "aetheris",
        "connect_timeout": _CONNECT_TIMEOUT,
        # A peer that vanished without a word is noticed within the deadline of a call.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": int(settings.statement_timeout * 1000),
    }
    try:
        given = conninfo_to_dict(settings.dsn)
    except psycopg.ProgrammingError:
        # Its message may quote the DSN, and so a password.
        raise ConfigError("postgres.dsn", "expected a PostgreSQL connection string") from None
    # Not the database's nor PGCLIENTENCODING: with another the driver gives bytes for text.
    return make_conninfo("", **{**defaults, **given, "client_encoding": "UTF8"})
