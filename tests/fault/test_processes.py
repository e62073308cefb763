"""`--processes 2`: killed one by one under load, hung, without their supervisor, told to end."""

import asyncio
import signal
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aetheris.api.v1 import operator_service_pb2, operator_service_pb2_grpc
from aetheris_client import Client
from tests.fault.chaos.audit import check_effects, check_log
from tests.fault.chaos.load import Book, Load
from tests.fault.chaos.workflows import EFFECTS_VARIABLE
from tests.fault.conftest import NewServer
from tests.support.drive import drive_simple_workflow, persist
from tests.support.http_requests import get
from tests.support.processes import ModuleProcess, ServerProcess, Stopwatch, running
from tests.support.raw import Raw
from tests.support.supervised import (
    kill_process,
    pids_of,
    sum_by_process,
    wait_gone,
    wait_output,
    wait_ready,
)
from tests.support.wait import wait_until

# So many that none of two hosts is without by chance: placement is by hash, and ids are random.
_SHARDS = 16
_SETTINGS = {
    "AETHERIS_PROCESSES": "2",
    "AETHERIS_HTTP__PORT": "0",
    "AETHERIS_HISTORY__SHARD_COUNT": f"{_SHARDS}",
}
_CONCURRENCY = 12
_PROBE_TIMEOUT = 5.0
_PROBE_INTERVAL = 0.05
# A connection for each channel.
_APART = [("grpc.use_local_subchannel_pool", 1)]

# Blocks the event loop of whoever gets SIGUSR1.
_BLOCKING = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
from aetheris_server import cli
cli.main()
"""

# Once the file is there, a process ends before it does anything.
_ENDING = """
import os
from aetheris_server.processes.channel import is_supervised
if is_supervised() and os.path.exists({flag!r}):
    os._exit(3)
from aetheris_server import cli
cli.main()
"""


def _make_workers(folder: Path, address: str, effects: Path) -> list[ModuleProcess]:
    effects.touch()
    environment = {EFFECTS_VARIABLE: str(effects)}
    return [
        ModuleProcess(folder / f"{name}.log", environment, "tests.fault.chaos.worker", address)
        for name in ("worker-1", "worker-2")
    ]


@asynccontextmanager
async def _working(workers: list[ModuleProcess]) -> AsyncGenerator[None]:
    try:
        for worker in workers:
            worker.launch()
        yield
    except BaseException:
        for worker in workers:
            sys.stderr.write(f"--- output of a worker\n{worker.output}\n")
        raise
    finally:
        for worker in workers:
            await worker.kill()


async def _probe(address: str, stop: asyncio.Event) -> int:
    """Ask over a new connection each time until `stop`; how many times it was answered.

    Raises:
        TimeoutError: Nobody answered in time.
    """
    count = 0
    while not stop.is_set():
        async with asyncio.timeout(_PROBE_TIMEOUT):
            # A call in flight is cut with the process that has it.
            await persist(lambda: _check_health(address))
        count += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _PROBE_INTERVAL)
    return count


async def _check_health(address: str) -> None:
    async with grpc.aio.insecure_channel(address, options=_APART) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        await stub.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True)


@pytest.mark.slow
async def test_processes_killed_one_by_one_under_load_lose_and_repeat_no_run(
    new_server: NewServer, migrated_postgres_dsn: str, tmp_path: Path
) -> None:
    server, book, effects = new_server(**_SETTINGS), Book(), tmp_path / "effects"
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(server))
        workers = _make_workers(tmp_path, server.address, effects)
        await stack.enter_async_context(_working(workers))
        clients = [
            await stack.enter_async_context(await Client.connect(server.address)) for _ in range(3)
        ]
        now = time.monotonic()
        load, stop = Load(clients, book, now + 90.0, now + 180.0), asyncio.Event()
        probing = asyncio.create_task(_probe(server.address, stop))
        loading = asyncio.create_task(load.run(seed=1, concurrency=_CONCURRENCY))
        try:
            for number in (1, 2):
                done = book.done.total()
                await wait_until(lambda done=done: book.done.total() > done + 10, 60, "load")
                await kill_process(server, number)
            load.end_time = time.monotonic()
            await loading
        finally:
            stop.set()
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        assert await probing > 20
        restarts = await sum_by_process(await server.wait_http(), "aetheris_process_restarts_total")
        assert restarts == {1: 1, 2: 1}
        assert await server.terminate() == 0, server.output
    faults = await asyncio.to_thread(check_log, migrated_postgres_dsn, book)
    assert book.faults + faults + check_effects(effects) == []


async def test_processes_share_the_port_and_are_hosts_of_one_cluster(
    new_server: NewServer,
) -> None:
    server = new_server(**_SETTINGS)
    # As users do, with what gRPC is told for itself there.
    server.program = ("-m", "aetheris_server")
    async with running(server):
        http = await server.wait_http()
        for _ in range(24):
            async with grpc.aio.insecure_channel(server.address, options=_APART) as channel:
                stub: Any = operator_service_pb2_grpc.OperatorServiceStub(channel)
                cluster = await stub.DescribeCluster(
                    operator_service_pb2.DescribeClusterRequest(), timeout=_PROBE_TIMEOUT
                )
                assert len(cluster.hosts) == 2
        calls = await sum_by_process(http, "aetheris_grpc_calls_total")
        assert min(calls.values()) > 0

        async def are_spread() -> bool:
            shards = await sum_by_process(http, "aetheris_owned_shards")
            return sum(shards.values()) == _SHARDS and min(shards.values()) > 0

        # A host that has joined is given its shards by the others a moment later.
        await wait_until(are_spread, 30, "shards at both processes")


async def test_metrics_of_all_processes_go_on_while_one_is_killed(new_server: NewServer) -> None:
    server = new_server(**_SETTINGS)
    async with running(server), Raw(server.address) as raw:
        http = await server.wait_http()
        await drive_simple_workflow(raw)
        before = await sum_by_process(http, "aetheris_sql_statements_total")
        await kill_process(server, 1)
        after = await sum_by_process(http, "aetheris_sql_statements_total")
        text = await get(http, "/metrics")
        assert after[1] < before[1]
        assert after[2] >= before[2]
        assert (await sum_by_process(http, "aetheris_process_ready")) == {1: 1, 2: 1}
        assert text.count("# TYPE aetheris_sql_statements_total counter") == 1


async def test_sigterm_to_the_supervisor_drains_all_processes_under_load(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    server = new_server(**_SETTINGS)
    async with running(server):
        pids, http = pids_of(server), await server.wait_http()
        async with Raw(server.address) as raw:
            started: list[str] = []
            loads = [asyncio.create_task(_start_runs(raw, started)) for _ in range(8)]
            await wait_until(lambda: len(started) > 20, 10)
            assert (await get(http, "/readyz")).startswith("HTTP/1.1 200 ")
            watch = Stopwatch()
            assert await server.terminate() == 0, server.output
            assert watch.seconds < 5
            for load in loads:
                load.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
        await wait_gone(pids, 0.1)
        assert server.output.count("draining") == 3
        assert server.output.count("shards released") >= 2
    with psycopg.connect(migrated_postgres_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM hosts").fetchone() == (0,)


async def _start_runs(raw: Raw, started: list[str]) -> None:
    while True:
        started.append((await raw.start_run()).run_id)


async def test_process_told_to_end_by_itself_drains_and_is_started_again(
    new_server: NewServer,
) -> None:
    server = new_server(**_SETTINGS)
    async with running(server):
        ended = pids_of(server)[1]
        psutil.Process(ended).terminate()
        await wait_until(lambda: pids_of(server)[1] != ended, 30)
        await wait_ready(server, 2)
        assert "status='exit code 0'" in server.output


@pytest.mark.parametrize("is_blocked", [False, True])
async def test_supervisor_killed_takes_its_processes_along_and_can_start_again(
    new_server: NewServer, is_blocked: bool
) -> None:
    server = new_server(**_SETTINGS)
    server.program = ("-c", _BLOCKING)
    async with running(server):
        pids = pids_of(server)
        if is_blocked:
            psutil.Process(pids[1]).send_signal(signal.SIGUSR1)
        await server.kill()
        await wait_gone(pids, 5.0)
        await server.start()
        await wait_ready(server, 2)


async def test_second_signal_ends_the_supervisor_and_its_processes_at_once(
    new_server: NewServer,
) -> None:
    # A call that is still being answered holds up the end.
    server = new_server(**_SETTINGS, AETHERIS_GRPC__DRAIN_TIMEOUT="60s")
    server.program = ("-c", _BLOCKING)
    async with running(server):
        pids = pids_of(server)
        psutil.Process(pids[1]).send_signal(signal.SIGUSR1)
        server.send(signal.SIGTERM)
        await wait_output(server, "draining")
        server.send(signal.SIGTERM)
        assert await server.wait_exit() == -signal.SIGTERM, server.output
        await wait_gone(pids, 5.0)


async def test_process_that_does_not_drain_is_killed_and_the_exit_code_says_so(
    new_server: NewServer,
) -> None:
    server = new_server(**_SETTINGS, AETHERIS_GRPC__DRAIN_TIMEOUT="1s")
    server.program = ("-c", _BLOCKING.replace("cli.main()", "cli._END_TIMEOUT = 6.0\ncli.main()"))
    async with running(server):
        pids = pids_of(server)
        psutil.Process(pids[2]).suspend()
        watch = Stopwatch()
        server.send(signal.SIGTERM)
        assert await server.wait_exit() == 1, server.output
        assert watch.seconds < 7.5
        await wait_gone(pids, 0.1)
        assert "the processes did not all end well when they were told to: 2" in server.output


@pytest.mark.slow
@pytest.mark.parametrize("is_stopped", [True, False])
async def test_process_that_hangs_holds_up_no_probe_and_is_replaced(
    new_server: NewServer, is_stopped: bool
) -> None:
    server = new_server(**_SETTINGS)
    server.program = ("-c", _BLOCKING)
    async with running(server):
        http, hung = await server.wait_http(), pids_of(server)[1]
        psutil.Process(hung).send_signal(signal.SIGSTOP if is_stopped else signal.SIGUSR1)

        async def is_noticed() -> bool:
            watch = Stopwatch()
            readiness = await get(http, "/readyz")
            assert (await get(http, "/healthz")).endswith("ok\n")
            assert watch.seconds < 0.5
            assert readiness.startswith("HTTP/1.1 200 ")
            return "1 of 2 processes are ready" in readiness

        await wait_until(is_noticed, 10.0)
        watch = Stopwatch()
        statements = await sum_by_process(http, "aetheris_sql_statements_total")
        assert watch.seconds < 3
        assert set(statements) == {2}
        assert await sum_by_process(http, "aetheris_process_ready") == {1: 0, 2: 1}
        await wait_until(lambda: pids_of(server)[1] != hung, 30.0, "another in its place")
        assert "a process hangs; ending it by force" in server.output
        await wait_ready(server, 2)


async def test_process_that_ends_at_once_is_started_again_ever_more_slowly(
    new_server: NewServer, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    server = new_server(**_SETTINGS)
    server.program = ("-c", _ENDING.format(flag=str(flag)))
    async with running(server):
        http = await server.wait_http()
        flag.touch()
        watch = Stopwatch()
        psutil.Process(pids_of(server)[1]).kill()
        await wait_output(server, "exit code 3", 3)
        # 0.5 s after the kill, then 1 s and 2 s.
        assert watch.seconds > 3.5
        for seconds in ("0.5", "1.0", "2.0", "4.0"):
            assert f"seconds={seconds}" in server.output
        assert (await get(http, "/readyz")).startswith("HTTP/1.1 200 ")
        flag.unlink()
        await wait_ready(server, 2)
        assert await server.terminate() == 0, server.output


async def test_server_killed_while_it_starts_again_and_again_gives_up(
    new_server: NewServer,
) -> None:
    server = new_server(**_SETTINGS)
    server.program = (
        "-c",
        _ENDING.format(flag="/").replace("os._exit(3)", "os.kill(os.getpid(), 9)"),
    )
    server.launch()
    try:
        assert await server.wait_exit() == 1, server.output
        assert "ended before it served: signal SIGKILL" in server.output
    finally:
        await server.kill()


async def test_server_told_to_end_while_its_processes_start_ends_at_once(
    new_server: NewServer,
) -> None:
    server = new_server(**_SETTINGS)
    server.launch()
    try:
        await wait_output(server, "a process was started", 2)
        watch = Stopwatch()
        assert await server.terminate() == 1, server.output
        assert watch.seconds < 3
        await wait_gone(pids_of(server), 0.1)
    finally:
        await server.kill()
    assert "Traceback" not in server.output


_Ended = tuple[int, str]


async def _end_of(server: ServerProcess) -> _Ended:
    """The exit code of a server that cannot start, and the one line that it has for people."""
    server.launch()
    try:
        code = await server.wait_exit(60.0)
    finally:
        await server.kill()
    assert "Traceback" not in server.output
    (said,) = [line for line in server.output.splitlines() if line.startswith("aetheris-server: ")]
    return code, said


async def test_mistake_is_told_once_and_as_by_one_process(
    new_server: NewServer, postgres_dsn: str
) -> None:
    one, several = new_server(postgres_dsn), new_server(postgres_dsn, **_SETTINGS)
    ends = [await _end_of(server) for server in (one, several)]
    assert ends[0] == ends[1]
    assert ends[1][0] == 2


async def test_internal_port_in_use_is_told_once_and_ends_the_server(
    new_server: NewServer,
) -> None:
    occupant = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with occupant:
        port = occupant.sockets[0].getsockname()[1]
        server = new_server(**_SETTINGS)
        server.internal_address = f"127.0.0.1:{port - 1}"
        code, said = await _end_of(server)
    assert code == 2
    assert f"internal.port: 127.0.0.1:{port} cannot be bound" in said


@pytest.mark.parametrize("first, second", [("1", "2"), ("2", "1"), ("2", "2")])
async def test_public_port_of_another_server_is_refused(
    new_server: NewServer, first: str, second: str
) -> None:
    server = new_server(AETHERIS_PROCESSES=first)
    async with running(server):
        other = new_server(AETHERIS_PROCESSES=second)
        other.address = server.address
        code, said = await _end_of(other)
    assert code == 2
    assert said.startswith(f"aetheris-server: grpc.port: {server.address} cannot be bound")


async def test_lines_of_the_log_say_which_process(new_server: NewServer) -> None:
    server = new_server(**_SETTINGS, AETHERIS_LOG__FORMAT="json")
    async with running(server):
        pass
    lines = [line for line in server.output.splitlines() if line.startswith("{")]
    assert all('"process":' in line for line in lines)
    for process in ("1", "2", "supervisor"):
        assert any(f'"process":"{process}"' in line for line in lines)
