"""A connection pooler for Postgres, as PgBouncer is one in its two usual modes.

In transaction mode a client has a connection to the server only from the first message of a
transaction to its end; the one that was given back last is given out first.
"""

import asyncio
import os
import socket
import struct
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

_SSL_REQUEST, _GSS_REQUEST = 80877103, 80877104
_PARAMETERS = {
    "server_version": "18.0",
    "client_encoding": "UTF8",
    "server_encoding": "UTF8",
    "standard_conforming_strings": "on",
    "integer_datetimes": "on",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
}
_NO_PID = 424242


@dataclass(slots=True)
class _Backend:
    """A connection to the server: the driver's, which has said who we are, and its bytes."""

    connection: psycopg.AsyncConnection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def close(self) -> None:
        self.writer.transport.abort()
        await self.connection.close()


class _Pooler:
    """One pool for one database, without a bound."""

    def __init__(self, dsn: str, *, is_transaction_mode: bool) -> None:
        self._dsn = dsn
        self._is_transaction_mode = is_transaction_mode
        self._idle: list[_Backend] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it leaves."""
        try:
            await self._greet(reader, writer)
            await self._relay(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async def close(self) -> None:
        for backend in self._idle:
            await backend.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            (length,) = struct.unpack("!I", await reader.readexactly(4))
            body = await reader.readexactly(length - 4)
            if struct.unpack("!I", body[:4])[0] not in (_SSL_REQUEST, _GSS_REQUEST):
                break
            writer.write(b"N")
        writer.write(_message(b"R", struct.pack("!I", 0)))
        for name, value in _PARAMETERS.items():
            writer.write(_message(b"S", f"{name}\0{value}\0".encode()))
        writer.write(_message(b"K", struct.pack("!II", _NO_PID, 1)))
        writer.write(_message(b"Z", b"I"))

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        backend: _Backend | None = None
        try:
            while True:
                kind, message = await _read(reader)
                if kind == b"X":
                    return
                if backend is None:
                    backend = await self._take()
                backend.writer.write(message)
                if kind in (b"Q", b"S") and await self._answer(backend, writer):
                    self._idle.append(backend)
                    backend = None
        finally:
            if backend is not None:
                await backend.close()

    async def _answer(self, backend: _Backend, writer: asyncio.StreamWriter) -> bool:
        """Pass an answer on; whether the connection can be given to another client after it."""
        while True:
            kind, message = await _read(backend.reader)
            writer.write(message)
            if kind == b"Z":
                return self._is_transaction_mode and message[-1:] == b"I"

    async def _take(self) -> _Backend:
        if self._idle:
            return self._idle.pop()
        connection = await psycopg.AsyncConnection.connect(self._dsn)
        stream = socket.socket(fileno=os.dup(connection.pgconn.socket))
        stream.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=stream)
        return _Backend(connection, reader, writer)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
    return head[:1], head + body


@asynccontextmanager
async def postgres_pooler(dsn: str, *, is_transaction_mode: bool) -> AsyncGenerator[str]:
    """The DSN of a pooler before the Postgres of a DSN."""
    pooler = _Pooler(dsn, is_transaction_mode=is_transaction_mode)
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="pooler-") as folder:
        server = await asyncio.start_unix_server(pooler.serve, Path(folder) / ".s.PGSQL.5432")
        async with server:
            yield make_conninfo(dsn, host=folder, port=5432)
            await pooler.close()
