"""A proxy for byte streams that cuts connections where a test wants it."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CuttingProxy:
    """Passes bytes on, until told not to.

    Attributes:
        is_refusing: New connections are closed at once.
        is_ignoring: New connections are accepted, and nothing ever comes back on them.
        drops_next_reply: The server's next bytes are lost, and the connection that they were for is
            cut on both sides. Reset once that has happened.
        holds_replies: What the server sends does not come to its client, on a connection that
            stays until it is cut.
        delay: Seconds that whatever comes is kept, in both directions.
        connection_count: Connections accepted and not refused.
    """

    def __init__(self, connect: Callable[[], Awaitable[_Streams]]) -> None:
        self._connect = connect
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_refusing = False
        self.is_ignoring = False
        self.drops_next_reply = False
        self.holds_replies = False
        self.delay = 0.0
        self.connection_count = 0
        self._cut = asyncio.Event()
        self._flowing = asyncio.Event()
        self._flowing.set()

    @property
    def is_holding(self) -> bool:
        """Whether nothing is passed on, old connections and new ones kept open: a network gone."""
        return not self._flowing.is_set()

    @is_holding.setter
    def is_holding(self, holds: bool) -> None:
        if holds:
            self._flowing.clear()
        else:
            self._flowing.set()

    def cut(self) -> None:
        """Cut every connection now; those made from here on stay."""
        self._cut.set()
        self._cut = asyncio.Event()
        for writer in self._writers:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one client's connection on until either side ends it, or there is no server."""
        if self.is_refusing:
            writer.transport.abort()
            return
        self.connection_count += 1
        if self.is_ignoring:
            while await reader.read(65536):
                pass
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, server_writer}
        self._writers |= pair
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, server_writer, pair, is_reply=False))
                group.create_task(self._pass(server_reader, writer, pair, is_reply=True))
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _pass(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        pair: set[asyncio.StreamWriter],
        *,
        is_reply: bool,
    ) -> None:
        cut = self._cut
        try:
            while data := await source.read(65536):
                await self._flowing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if is_reply and self.drops_next_reply:
                    self.drops_next_reply = False
                    break
                if is_reply and self.holds_replies:
                    await cut.wait()
                    break
                target.write(data)
                await target.drain()
        except OSError:
            pass
        for end in pair:
            end.transport.abort()


@asynccontextmanager
async def postgres_proxy(dsn: str) -> AsyncGenerator[tuple[CuttingProxy, str]]:
    """A proxy before the Postgres of a DSN, and the DSN that goes through it."""
    parameters = conninfo_to_dict(dsn)
    host, port = str(parameters.get("host", "localhost")), int(parameters.get("port") or 5432)

    async def connect() -> _Streams:
        if host.startswith("/"):
            return await asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
        return await asyncio.open_connection(host, port)

    proxy = CuttingProxy(connect)
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="proxy-") as folder:
        server = await asyncio.start_unix_server(proxy.serve, Path(folder) / ".s.PGSQL.5432")
        async with server:
            yield proxy, make_conninfo(dsn, host=folder, port=5432)
            proxy.cut()


@asynccontextmanager
async def grpc_proxy(address: str) -> AsyncGenerator[tuple[CuttingProxy, str]]:
    """A proxy before a server at `host:port`, and the address that goes through it."""
    host, _, port = address.rpartition(":")
    proxy = CuttingProxy(lambda: asyncio.open_connection(host, int(port)))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    async with server:
        yield proxy, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        proxy.cut()
