"""What hangs is named."""

import asyncio
import subprocess
import sys
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


_ASKED = """
import asyncio, os, signal
from aetheris_server.shutdown import Shutdown

async def main():
    shutdown = Shutdown(limit=60.0)

    def ask():
        for _ in range(2):
            shutdown.ask()
        os.kill(os.getpid(), signal.SIGTERM)

    async def serve():
        asyncio.get_running_loop().call_soon(ask)
        await shutdown.wait()
        # So that the signal has come.
        await asyncio.sleep(0.1)
        print("drained")

    assert await shutdown.run(serve())

asyncio.run(main())
"""


def test_shutdown_asked_for_in_words_takes_the_first_signal_as_the_same() -> None:
    # A process of its own: what ends is a process, and so are its signals.
    done = subprocess.run(
        [sys.executable, "-c", _ASKED], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "drained\n"), done.stderr
