"""HTTP requests by raw bytes."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

_TIMEOUT = 10.0


@asynccontextmanager
async def connected(
    address: tuple[str, int], count: int, sent: bytes
) -> AsyncGenerator[list[asyncio.StreamReader]]:
    """Connections that send something and then wait."""
    opened = [await asyncio.open_connection(*address) for _ in range(count)]
    for _, writer in opened:
        writer.write(sent)
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def get(address: tuple[str, int], path: str) -> str:
    """All that a server answers to a request."""
    sent = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    async with asyncio.timeout(_TIMEOUT), connected(address, 1, sent) as [reader]:
        return (await reader.read()).decode()
