"""Connections: why none is made, and which event loop has which channel."""

import asyncio
import socket
import subprocess
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from aetheris.api.v1.error_details_pb2 import NotReadyDetail
from aetheris.api.v1.operator_service_pb2 import DescribeTaskQueueResponse
from aetheris.api.v1.task_queue_pb2 import PollerInfo
from aetheris.api.v1.workflow_pb2 import WorkflowExecutionInfo
from aetheris.api.v1.workflow_service_pb2 import (
    DescribeWorkflowResponse,
    SignalWorkflowResponse,
)
from aetheris_client import Client, Connection, TlsConfig, channels, errors
from aetheris_client.reachability import is_loopback, proxy_for
from tests.support.canned_server import CannedServer, Refusal, served_on_a_thread
from tests.support.connections import connection_count
from tests.support.cutting_proxy import grpc_proxy
from tests.support.name_server import name_server
from tests.support.wait import wait_until

SHORT = timedelta(seconds=0.3)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that nobody trusts, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return folder / "cert.pem", folder / "key.pem"


@asynccontextmanager
async def tls_server(certificate: tuple[Path, Path]) -> AsyncGenerator[str]:
    cert, key = certificate
    server = grpc.aio.server()
    pair = (key.read_bytes(), cert.read_bytes())
    port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([pair]))
    await server.start()
    yield f"localhost:{port}"
    await server.stop(None)


async def why(address: str, tls: TlsConfig | bool = False) -> str:
    with pytest.raises(errors.UnavailableError) as caught:
        await Client.connect(address, tls=tls, connect_timeout=SHORT)
    return caught.value.message


async def test_server_that_is_not_there_is_refused_with_the_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert await why(address) == (
            f"no server answers at {address} within 0.3 s: connection refused: nothing listens "
            "there"
        )


async def test_name_of_several_addresses_that_all_refuse_is_refused():
    assert "connection refused" in await why("localhost:1")


async def test_host_that_is_unknown_is_named():
    assert "the host name 'no-such-host.invalid' is not known" in (
        await why("no-such-host.invalid:7233")
    )


async def test_address_without_port_says_what_is_expected():
    assert "the address is not host:port" in await why("localhost")


@pytest.mark.parametrize("written", ["dns:{}", "dns:///{}", "ipv4:{}", "{}"])
async def test_address_is_looked_into_however_grpc_lets_it_be_written(written: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    found = await why(written.format(f"127.0.0.1:{port}"))
    assert found.endswith("connection refused: nothing listens there")


@pytest.mark.parametrize("roots", [b"garbage", b"\xff\xfe"])
async def test_roots_that_are_no_certificates_are_named(roots: bytes) -> None:
    found = await why("localhost:1", TlsConfig(server_root_ca_cert=roots))
    assert "server_root_ca_cert holds no certificates in PEM" in found


async def test_plain_client_of_a_tls_server_is_told_to_encrypt(certificate: tuple[Path, Path]):
    async with tls_server(certificate) as address:
        assert "the server expects TLS: connect with tls=True" in await why(address)


async def test_tls_client_of_a_plain_server_is_told_not_to(server: CannedServer):
    assert "the server does not speak TLS" in await why(server.address, tls=True)


async def test_certificate_that_is_not_trusted_is_said(certificate: tuple[Path, Path]):
    async with tls_server(certificate) as address:
        assert "certificate is not accepted: self-signed certificate" in await why(address, True)
        trusting = TlsConfig(server_root_ca_cert=certificate[0].read_bytes())
        async with await Client.connect(address, tls=trusting):
            pass


async def test_server_that_hangs_is_said():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert "a server that hangs" in await why(address)


async def test_server_whose_first_answer_takes_long_is_connected_to_at_the_first_try(
    server: CannedServer,
):
    async with grpc_proxy(server.address) as (proxy, address):
        proxy.is_holding = True
        connecting = asyncio.create_task(Client.connect(address))
        with pytest.raises(AssertionError):
            await wait_until(lambda: proxy.connection_count > 1, timeout=2)
        proxy.is_holding = False
        async with await connecting:
            assert proxy.connection_count == 1


async def test_server_whose_name_has_moved_is_found_where_it_is(server: CannedServer):
    async with name_server("127.0.0.9") as names:
        address = f"dns://{names.address}/server.test:{server.port}"
        connecting = asyncio.create_task(
            Client.connect(address, connect_timeout=timedelta(seconds=10))
        )
        await wait_until(lambda: names.asked_count)
        names.answer = "127.0.0.1"
        async with await connecting:
            pass


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
async def test_loopback_never_goes_through_a_proxy(
    server: CannedServer, monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, "http://127.0.0.1:1")
    async with await Client.connect(server.address, connect_timeout=timedelta(seconds=5)):
        pass


async def test_proxy_in_the_way_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("https_proxy", "http://me:secret@127.0.0.1:1")
    message = await why("aetheris.invalid:7233")
    assert "through the proxy 127.0.0.1 that https_proxy names" in message
    assert "secret" not in message


def test_proxy_is_known_by_grpcs_own_rules():
    proxy = {"http_proxy": "http://p:1"}
    assert proxy_for("h.example:1", proxy) == "http_proxy"
    assert proxy_for("h.example:1", {**proxy, "no_proxy": "x, .example"}) is None
    assert proxy_for("localhost:1", proxy) is None
    assert is_loopback("dns:///[::1]:1")
    assert is_loopback("127.8.8.8:1")
    assert not is_loopback("10.0.0.1:1")


# -- event loops


@pytest.fixture
def threaded() -> Iterator[CannedServer]:
    with served_on_a_thread() as server:
        server.on("SignalWorkflow", SignalWorkflowResponse())
        yield server


def test_client_serves_one_event_loop_after_another(threaded: CannedServer):
    client = asyncio.run(Client.connect(threaded.address))
    for _ in range(3):
        asyncio.run(client.get_workflow_handle("w").signal("s"))
    asyncio.run(client.close())
    assert len(threaded.requests) == 3


def test_client_serves_event_loops_of_several_threads_at_once(threaded: CannedServer):
    client = Client(Connection(threaded.address))

    async def signal_often() -> None:
        for _ in range(20):
            await client.get_workflow_handle("w").signal("s")

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(asyncio.run, signal_often()) for _ in range(4)]:
            done.result(30)
    assert len(threaded.requests) == 80


def test_client_made_outside_of_any_event_loop_serves_one(threaded: CannedServer):
    client = Client(Connection(threaded.address))
    asyncio.run(client.get_workflow_handle("w").signal("s"))
    assert len(threaded.requests) == 1


async def test_client_that_was_closed_says_so(server: CannedServer):
    async with await Client.connect(server.address) as client:
        handle = client.get_workflow_handle("w")
    with pytest.raises(errors.ConnectionClosedError, match=f"{server.address} was closed"):
        await handle.signal("s")


# -- channels


class HeldCalls:
    """Signals that are in flight until they are let go, one by one."""

    def __init__(self, server: CannedServer) -> None:
        self._server = server
        self._gates: list[asyncio.Event] = []
        self._calls: list[asyncio.Task[None]] = []
        server.on("SignalWorkflow", self._answer)

    async def _answer(self, _: object) -> SignalWorkflowResponse:
        gate = asyncio.Event()
        self._gates.append(gate)
        await gate.wait()
        return SignalWorkflowResponse()

    async def start(self, client: Client, count: int) -> None:
        """Start so many, each once the one before is with the server."""
        for _ in range(count):
            before = len(self._gates)
            call = asyncio.create_task(client.get_workflow_handle("w").signal("s"))
            self._calls.append(call)
            await wait_until(lambda: len(self._gates) > before)  # noqa: B023 - awaited at once

    async def let_go(self, number: int) -> None:
        """Let one end; by the order of their start."""
        self._gates[number].set()
        async with asyncio.timeout(10):
            await self._calls[number]


@pytest.fixture
def small_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "CALLS_PER_CHANNEL", 2)
    monkeypatch.setattr(channels, "IDLE_TIMEOUT", 0.2)


@pytest.mark.usefixtures("small_channels")
async def test_channels_that_a_peak_has_opened_are_closed_when_idle_and_the_first_stays(
    server: CannedServer,
):
    async with await Client.connect(server.address) as client:
        held = HeldCalls(server)
        await held.start(client, 6)
        assert connection_count(server.port) == 3
        for number in range(6):
            await held.let_go(number)
        await wait_until(lambda: connection_count(server.port) == 1, what="idle channels' end")
        await held.start(client, 3)
        assert connection_count(server.port) == 2
        for number in range(6, 9):
            await held.let_go(number)


@pytest.mark.usefixtures("small_channels")
async def test_channel_in_use_is_not_closed_however_long_its_call_takes(server: CannedServer):
    async with await Client.connect(server.address) as client:
        held = HeldCalls(server)
        await held.start(client, 6)
        # All calls of the second channel; one of the third's two.
        for number in (2, 3, 4):
            await held.let_go(number)
        await wait_until(lambda: connection_count(server.port) == 2, what="the second's end")
        await held.let_go(5)
        await held.let_go(0)
        await held.let_go(1)
        await wait_until(lambda: connection_count(server.port) == 1, what="the third's end")


@pytest.mark.usefixtures("small_channels")
async def test_channel_that_is_used_again_before_its_time_is_kept(server: CannedServer):
    async with await Client.connect(server.address) as client:
        held = HeldCalls(server)
        await held.start(client, 3)
        await held.let_go(2)
        await held.start(client, 1)
        # Twice as long as an idle channel is kept.
        deadline = asyncio.get_running_loop().time() + 2 * channels.IDLE_TIMEOUT
        await wait_until(lambda: asyncio.get_running_loop().time() > deadline)
        assert connection_count(server.port) == 2
        for number in (0, 1, 3):
            await held.let_go(number)


@pytest.mark.usefixtures("small_channels")
async def test_client_that_is_closed_in_a_peak_leaves_no_connection(server: CannedServer):
    async with await Client.connect(server.address) as client:
        held = HeldCalls(server)
        await held.start(client, 5)
        for number in range(5):
            await held.let_go(number)
    await wait_until(lambda: connection_count(server.port) == 0)


# -- queries that nobody answers


@pytest.mark.parametrize("is_polled", [False, True])
async def test_query_without_workers_says_that_none_polls(
    server: CannedServer, client: Client, is_polled: bool
):
    detail = NotReadyDetail(waited_for="a worker of task queue 'hello'")
    server.on("QueryWorkflow", Refusal(grpc.StatusCode.UNAVAILABLE, detail=detail))
    info = WorkflowExecutionInfo(task_queue="hello")
    server.on("DescribeWorkflow", DescribeWorkflowResponse(workflow_execution_info=info))
    pollers = [PollerInfo(identity="me", waiting_poll_count=1)] if is_polled else []
    server.on("DescribeTaskQueue", DescribeTaskQueueResponse(pollers=pollers))
    with pytest.raises(errors.NotReadyError) as caught:
        await client.get_workflow_handle("w").query("q")
    assert ("no worker polls task queue 'hello'" in str(caught.value)) is not is_polled
