"""SIGTERM ends a server: soon under load, within a limit when it hangs, at once when repeated."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.support.http_requests import connected, get
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


async def test_http_clients_that_wait_do_not_hold_up_the_end(new_server: NewServer) -> None:
    process = new_server(AETHERIS_HTTP__PORT="0")
    async with running(process):
        address = await process.wait_http()
        async with (
            connected(address, 50, b""),
            connected(address, 50, b"GET /heal"),
            connected(address, 50, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n") as answered,
        ):
            for reader in answered:
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
            watch = Stopwatch()
            process.send(signal.SIGTERM)
            assert await process.wait_exit() == 0, process.output
            assert watch.seconds < 3
    assert "[error" not in process.output


async def test_http_answers_beside_a_thousand_silent_connections_and_keeps_few(
    new_server: NewServer,
) -> None:
    process = new_server(AETHERIS_HTTP__PORT="0")
    async with running(process):
        address = await process.wait_http()
        async with connected(address, 1000, b"GET /heal"):
            answer = await get(address, "/readyz")
            assert answer.startswith("HTTP/1.1 200 ")
            assert len(psutil.Process(process.pid).net_connections()) < 300
        assert await process.terminate() == 0, process.output


async def test_http_answers_until_a_server_that_drains_has_ended(new_server: NewServer) -> None:
    process = new_server(_HANGING.format(limit=60.0), AETHERIS_HTTP__PORT="0")
    async with running(process):
        address = await process.wait_http()
        assert (await get(address, "/readyz")).startswith("HTTP/1.1 200 ")
        process.send(signal.SIGTERM)

        async def is_draining() -> bool:
            return (await get(address, "/readyz")).startswith("HTTP/1.1 503 ")

        await wait_until(is_draining, 10)
        # Its gRPC port is closed by then.
        await wait_until(lambda: not _listens(process), 20)
        assert (await get(address, "/readyz")).endswith("waiting for draining\n")
        assert (await get(address, "/healthz")).endswith("ok\n")
        assert "aetheris_" in await get(address, "/metrics")
        process.send(signal.SIGTERM)
        assert await process.wait_exit() == -signal.SIGTERM, process.output


def _listens(process: ServerProcess) -> bool:
    port = int(process.address.rpartition(":")[2])
    return any(
        connection.laddr.port == port and connection.status == psutil.CONN_LISTEN
        for connection in psutil.Process(process.pid).net_connections()
    )


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
