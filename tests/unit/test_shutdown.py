"""What hangs is named."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aetheris_server.shutdown import describe_task


async def _inner() -> None:
    await asyncio.get_running_loop().create_future()


@asynccontextmanager
async def _context() -> AsyncGenerator[None]:
    yield
    await _inner()


async def _outer() -> None:
    async with _context():
        pass


async def test_task_that_hangs_is_described_by_the_calls_that_it_is_in() -> None:
    task = asyncio.create_task(_outer(), name="loads")
    await asyncio.sleep(0)
    described = describe_task(task)
    task.cancel()
    await asyncio.wait([task])
    assert described.startswith("loads: _outer (test_shutdown.py:")
    assert "> _context (test_shutdown.py:" in described
    assert "> _inner (test_shutdown.py:" in described
