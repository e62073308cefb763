"""Starting while a store is away: the server says what it waits for, and ends when told to."""

import asyncio
import socket
from typing import Self

from tests.fault.conftest import NewServer
from tests.support.processes import ServerProcess, Stopwatch
from tests.support.wait import wait_until

_BOUND = 2.5


class _SilentStore:
    """Takes connections and never says anything. A context manager.

    Attributes:
        port: Of this machine.
        connected: Set when somebody has come.
    """

    async def __aenter__(self) -> Self:
        self.connected = asyncio.Event()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected.set()
        while await reader.read(4096):
            continue
        writer.close()


def _unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


async def _end_at_once(server: ServerProcess) -> None:
    watch = Stopwatch()
    assert await server.terminate() in (0, 1), server.output
    assert watch.seconds < _BOUND, server.output
    assert "Traceback" not in server.output


async def test_start_without_postgres_says_so_and_ends_at_once_when_told_to(
    new_server: NewServer,
) -> None:
    server = new_server(f"postgresql://nobody@127.0.0.1:{_unused_port()}/nothing")
    server.launch()
    await wait_until(lambda: "error connecting" in server.output, 20, "a word about postgres")
    await _end_at_once(server)


async def test_start_with_a_silent_postgres_ends_at_once_when_told_to(
    new_server: NewServer,
) -> None:
    async with _SilentStore() as store:
        server = new_server(f"postgresql://nobody@127.0.0.1:{store.port}/nothing")
        server.launch()
        await asyncio.wait_for(store.connected.wait(), 20)
        await _end_at_once(server)


async def test_start_without_redis_says_so_and_ends_at_once_when_told_to(
    new_server: NewServer,
) -> None:
    server = new_server(redis=f"redis://127.0.0.1:{_unused_port()}")
    server.launch()
    await wait_until(lambda: "redis" in server.output, 20, "a word about redis")
    await _end_at_once(server)


async def test_start_with_a_silent_redis_ends_at_once_when_told_to(
    new_server: NewServer,
) -> None:
    async with _SilentStore() as store:
        server = new_server(redis=f"redis://127.0.0.1:{store.port}")
        server.launch()
        await asyncio.wait_for(store.connected.wait(), 20)
        await _end_at_once(server)
