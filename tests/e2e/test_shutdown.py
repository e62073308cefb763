"""SIGTERM ends a server: soon under load, within a limit when it hangs, at once when repeated."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import FAST, ServerProcess, Stopwatch, running, start_arguments
from tests.support.raw import Raw
from tests.support.runs import start_timer
from tests.support.wait import wait_until

NewServer = Callable[..., ServerProcess]

_HANGING = """
import asyncio
from aetheris_server import cli
from aetheris_server.cluster.membership import Membership

async def hang(self):
    await asyncio.get_running_loop().create_future()

Membership.leave = hang
cli._END_TIMEOUT = {limit}
cli.main()
"""


@pytest.fixture
def new_server(migrated_postgres_dsn: str, redis_url: str, tmp_path: Path) -> NewServer:
    def make(program: str = "", **settings: str) -> ServerProcess:
        chosen = {**FAST, "AETHERIS_REDIS__KEY_PREFIX": tmp_path.name, **settings}
        arguments = start_arguments(migrated_postgres_dsn, redis_url)
        if program:
            return ServerProcess(tmp_path, arguments, chosen, ("-c", program))
        return ServerProcess(tmp_path, arguments, chosen)

    return make


@pytest.mark.parametrize("_round", range(3))
async def test_sigterm_under_load_with_loads_in_flight_ends_in_time(
    new_server: NewServer, _round: int
) -> None:
    # Next to nothing stays in memory, so that whatever is due is loaded.
    process = new_server(AETHERIS_HISTORY__CACHE_MAX_RUNS="5")
    async with running(process), Raw(process.address) as server:
        count = 0

        async def run_some() -> None:
            nonlocal count
            while True:
                await server.start_run()
                await server.decide(await server.poll_workflow(), start_timer("t", 1.0))
                count += 1

        loads = [asyncio.create_task(run_some()) for _ in range(16)]
        await wait_until(lambda: count > 300, 60)
        watch = Stopwatch()
        process.send(signal.SIGTERM)
        assert await process.wait_exit() == 0, process.output
        assert watch.seconds < 3
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)


async def test_server_that_hangs_is_ended_and_says_where(new_server: NewServer) -> None:
    program = _HANGING.format(limit=1.0)
    process = new_server(program, AETHERIS_GRPC__DRAIN_TIMEOUT="1s")
    async with running(process):
        process.send(signal.SIGTERM)
        assert await process.wait_exit() == 1, process.output
        assert "the process does not end" in process.output
        assert "> hang (<string>:7)" in process.output


async def test_second_signal_ends_a_server_at_once(new_server: NewServer) -> None:
    process = new_server(_HANGING.format(limit=60.0))
    async with running(process):
        process.send(signal.SIGTERM)
        await wait_until(lambda: "draining" in process.output, 10)
        watch = Stopwatch()
        process.send(signal.SIGTERM)
        assert await process.wait_exit() == -signal.SIGTERM, process.output
        assert watch.seconds < 2
