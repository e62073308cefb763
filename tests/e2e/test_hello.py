"""The README's example, as its reader runs it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.support.processes import ServerProcess

ROOT = Path(__file__).parents[2]
DEADLINE = 30.0


async def start(server: ServerProcess, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        cwd=ROOT,
        env={**os.environ, "AETHERIS_ADDRESS": server.address},
        stdout=asyncio.subprocess.PIPE,
    )


@pytest.fixture
async def worker(
    shared_server: ServerProcess,
) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await start(shared_server, "examples.hello.worker")
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()


@pytest.mark.usefixtures("worker")
async def test_hello_client_prints_the_greeting(shared_server: ServerProcess) -> None:
    client = await start(shared_server, "examples.hello.client", "Ada")
    output, _ = await asyncio.wait_for(client.communicate(), DEADLINE)
    assert (output, client.returncode) == (b"Hello, Ada!\n", 0)


async def test_hello_worker_ends_well_on_ctrl_c(
    shared_server: ServerProcess, worker: asyncio.subprocess.Process
) -> None:
    client = await start(shared_server, "examples.hello.client")
    await asyncio.wait_for(client.communicate(), DEADLINE)
    worker.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(worker.wait(), DEADLINE) == 0
