"""One connection in libpq's pipeline mode: prepared statements in, one round trip, results out.

A batch of statements goes out with one sync behind it and is one transaction: without BEGIN and
COMMIT, which would only add two statements, the server commits at the sync or undoes all. The
socket stays registered with the loop for as long as the connection lives, so a batch costs one
wake-up, and a connection that breaks while idle is noticed at once. Whoever uses it sends one batch
at a time.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString

import psycopg
from psycopg import pq

from aetheris_server.storage.metrics import STATEMENTS

__all__ = ["PipelineConnection"]

_BINARY = int(pq.Format.BINARY)
_GOOD = frozenset({pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK})

Statement = tuple[bytes, list[bytes]]
"""The name of a prepared statement and its parameters, in binary form."""


class PipelineConnection:
    """A connection for `Database.connect_pipeline`'s callers."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Take over an idle connection; nobody else may use it from here on."""
        self._connection = connection
        self._pgconn = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._socket = self._pgconn.socket
        self._answer: asyncio.Future[list[pq.abc.PGresult]] | None = None
        self._results: list[pq.abc.PGresult] = []
        self._formats: dict[int, list[int]] = {}
        self._is_closed = False
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._on_readable)

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, by either side."""
        return self._is_closed

    async def prepare(self, statements: Mapping[bytes, LiteralString]) -> None:
        """Prepare statements under their names.

        Raises:
            psycopg.Error: One is refused, or the connection is lost.
        """

        def send() -> None:
            for name, query in statements.items():
                self._pgconn.send_prepare(name, query.encode())

        await self._exchange(send)

    async def run(self, statements: Sequence[Statement]) -> list[pq.abc.PGresult]:
        """Run statements as one transaction and wait until it is committed; their results.

        Raises:
            psycopg.OperationalError: The connection is lost, and `is_closed`; the transaction may
                have been committed.
            psycopg.Error: A statement failed; nothing was written, and the connection is still
                good.
        """

        def send() -> None:
            for name, parameters in statements:
                formats = self._formats_of(len(parameters))
                self._pgconn.send_query_prepared(name, parameters, formats, _BINARY)
            STATEMENTS.inc(len(statements))

        return await self._exchange(send)

    async def _exchange(self, send: Callable[[], None]) -> list[pq.abc.PGresult]:
        assert self._answer is None, "one batch at a time"
        self._answer = self._loop.create_future()
        try:
            send()
            self._pgconn.pipeline_sync()
            self._flush()
            results = await self._answer
        except BaseException:
            # Some of the answer is still to come, so the connection cannot be used again.
            self.close()
            raise
        finally:
            self._answer = None
        for result in results:
            if result.status not in _GOOD:
                raise psycopg.errors.error_from_result(result)
        return results

    def close(self) -> None:
        """Close it. Again is harmless."""
        # Not by libpq's status: a connection that the server closed still holds its socket, and the
        # loop must let go of that before its number is used again.
        if not self._is_closed:
            self._is_closed = True
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._pgconn.finish()

    def _formats_of(self, count: int) -> list[int]:
        formats = self._formats.get(count)
        if formats is None:
            formats = self._formats[count] = [_BINARY] * count
        return formats

    def _flush(self) -> None:
        # Also the writer callback, for a batch that is larger than the socket's buffer.
        try:
            is_pending = self._pgconn.flush()
        except psycopg.Error as error:
            self._fail(error)
            return
        if is_pending:
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)

    def _on_readable(self) -> None:
        try:
            self._pgconn.consume_input()
            if self._answer is not None:
                self._collect(self._answer)
        except psycopg.Error as error:
            self._fail(error)

    def _collect(self, answer: asyncio.Future[list[pq.abc.PGresult]]) -> None:
        while not answer.done() and not self._pgconn.is_busy():
            result = self._pgconn.get_result()
            if result is None:
                # The end of one statement's results; the sync's own result ends the batch.
                if self._pgconn.status == pq.ConnStatus.BAD:
                    raise psycopg.OperationalError("the connection is lost")
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                answer.set_result(self._results)
                self._results = []
            else:
                self._results.append(result)

    def _fail(self, error: psycopg.Error) -> None:
        self.close()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)
