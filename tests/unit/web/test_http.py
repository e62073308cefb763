"""What is answered over HTTP, and to whom not: on a real port, by raw bytes."""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from aetheris_server.config import ConfigError, HttpSettings
from aetheris_server.telemetry import counter
from aetheris_server.web import (
    HttpEndpoint,
    Readiness,
    build_app,
    connections,
    health_routes,
    serve_http,
    server,
)
from tests.support.processes import Stopwatch

_requests = counter("test_requests", "Requests of this test.", ["rpc"])

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def _serving(
    *routes: Route, readiness: Readiness = lambda: None, host: str = "127.0.0.1"
) -> AsyncGenerator[HttpEndpoint]:
    app = build_app([*health_routes(readiness), *routes])
    async with serve_http(HttpSettings(host=host, port=0), app) as endpoint:
        assert endpoint is not None
        yield endpoint


@asynccontextmanager
async def _connected(endpoint: HttpEndpoint, sent: bytes = b"") -> AsyncGenerator[Streams]:
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, limit=2**14)
    writer.write(sent)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _get(endpoint: HttpEndpoint, request: str) -> str:
    sent = f"{request}\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    async with asyncio.timeout(10), _connected(endpoint, sent) as (reader, _):
        return (await reader.read()).decode()


async def _is_cut(streams: Streams) -> bool:
    """Wait until the other side has closed; whether it did so without a word."""
    try:
        async with asyncio.timeout(10):
            return await streams[0].read() == b""
    except ConnectionError:
        return True


@pytest.mark.parametrize(
    "request_line,status,body",
    [
        ("GET /healthz HTTP/1.1", "200 OK", "ok\n"),
        ("GET /readyz?verbose=1 HTTP/1.1", "200 OK", "ok\n"),
        ("HEAD /healthz HTTP/1.1", "200 OK", ""),
        ("GET /other HTTP/1.1", "404 Not Found", "there are /metrics, /healthz and /readyz\n"),
        ("GET /metrics/ HTTP/1.1", "404 Not Found", "there are /metrics, /healthz and /readyz\n"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed", "expected GET or HEAD\n"),
    ],
)
async def test_serve_http_answers(request_line: str, status: str, body: str) -> None:
    async with _serving() as endpoint:
        answer = await _get(endpoint, request_line)
    assert answer.startswith(f"HTTP/1.1 {status}\r\n")
    assert answer.partition("\r\n\r\n")[2] == body


async def test_serve_http_not_ready_says_what_for() -> None:
    async with _serving(readiness=lambda: "shards") as endpoint:
        answer = await _get(endpoint, "GET /readyz HTTP/1.1")
    assert answer.startswith("HTTP/1.1 503 ")
    assert answer.endswith("waiting for shards\n")


@pytest.mark.parametrize(
    "waits_for, start, begin", [(None, "200", "ok\n"), ("one", "503", "waiting for one\n")]
)
async def test_serve_http_for_others_shows_their_metrics_and_says_how_they_are(
    waits_for: str | None, start: str, begin: str
) -> None:
    async def show_metrics() -> bytes:
        return b"theirs 1\n"

    app = build_app(health_routes(lambda: waits_for, show_metrics, lambda: "1 of 2\n"))
    async with serve_http(HttpSettings(port=0), app) as endpoint:
        assert endpoint is not None
        readiness = await _get(endpoint, "GET /readyz HTTP/1.1")
        assert readiness.startswith(f"HTTP/1.1 {start} ")
        assert readiness.endswith(f"\r\n\r\n{begin}1 of 2\n")
        assert (await _get(endpoint, "GET /healthz HTTP/1.1")).endswith("\r\n\r\nok\n")
        assert (await _get(endpoint, "GET /metrics HTTP/1.1")).endswith("\r\n\r\ntheirs 1\n")


async def test_serve_http_metrics_has_what_was_counted() -> None:
    _requests.labels("start").inc()
    async with _serving() as endpoint:
        answer = await _get(endpoint, "GET /metrics HTTP/1.1")
    assert "\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n" in answer
    assert 'aetheris_test_requests_total{rpc="start"} ' in answer


async def test_serve_http_answers_again_on_the_same_connection() -> None:
    request = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    async with _serving() as endpoint, _connected(endpoint) as (reader, writer):
        for _ in range(3):
            writer.write(request)
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"\r\n\r\nok\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_serve_http_handler_that_raises_is_logged_and_answered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_: Request) -> Response:
        raise KeyError("the fault")

    async with _serving(Route("/fail", fail)) as endpoint:
        answer = await _get(endpoint, "GET /fail HTTP/1.1")
        assert (await _get(endpoint, "GET /healthz HTTP/1.1")).endswith("ok\n")
    assert answer.startswith("HTTP/1.1 500 ")
    assert "the fault" not in answer
    [record] = [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert record.levelno == logging.ERROR
    assert "the fault" in caplog.text


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\r\n\r\n", b"GET / HTTP/1.1\r\nx: " + b"x" * 2**15])
async def test_serve_http_refuses_what_is_no_request_or_too_large(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with _serving() as endpoint, _connected(endpoint, sent) as (reader, _):
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    assert not caplog.records


@pytest.mark.parametrize(
    "sent", [b"", b"GET /hea", b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1"]
)
async def test_serve_http_cuts_a_client_that_does_not_finish_its_request(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    monkeypatch.setattr(connections, "RECEIVE_TIMEOUT", 0.2)
    async with (
        _serving(Route("/x", read, methods=["POST"])) as endpoint,
        _connected(endpoint, sent) as streams,
    ):
        assert await _is_cut(streams)


async def test_serve_http_cuts_a_client_that_sends_a_byte_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "RECEIVE_TIMEOUT", 0.2)
    async with _serving() as endpoint, _connected(endpoint, b"GET /") as streams:
        closed = asyncio.create_task(_is_cut(streams))
        while not closed.done():
            streams[1].write(b"x")
            await asyncio.wait([closed], timeout=0.05)
        assert closed.result()


async def test_serve_http_deadline_of_a_request_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def wait(_: Request) -> Response:
        await asyncio.sleep(0.4)
        return PlainTextResponse("late\n")

    monkeypatch.setattr(connections, "RECEIVE_TIMEOUT", 0.2)
    async with _serving(Route("/wait", wait)) as endpoint:
        assert (await _get(endpoint, "GET /wait HTTP/1.1")).endswith("late\n")


async def test_serve_http_cuts_a_client_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_cut = asyncio.Event()

    class Watched(connections.BoundedConnection):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            is_cut.set()

    monkeypatch.setattr(server, "BoundedConnection", Watched)
    monkeypatch.setattr(connections, "SEND_TIMEOUT", 0.2)
    request = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    async with (
        _serving(Route("/large", _answer_much)) as endpoint,
        _connected(endpoint, request) as (reader, _),
    ):
        await reader.readuntil(b"\r\n\r\n")
        # What the kernel had taken is still to come, long before all: then the end.
        await asyncio.wait_for(is_cut.wait(), 10)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(_MUCH)


async def test_serve_http_answers_beside_more_silent_connections_than_it_keeps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    async with _serving() as endpoint:
        opened = [await asyncio.open_connection(endpoint.host, endpoint.port) for _ in range(100)]
        assert (await _get(endpoint, "GET /healthz HTTP/1.1")).endswith("ok\n")
        for streams in opened[:80]:
            assert await _is_cut(streams)
        assert not any(reader.at_eof() for reader, _ in opened[81:])
        for _, writer in opened:
            writer.transport.abort()


async def test_serve_http_answers_many_connections_at_once() -> None:
    async with _serving() as endpoint:
        answers = await asyncio.gather(
            *(_get(endpoint, "GET /healthz HTTP/1.1") for _ in range(200))
        )
    assert all(answer.endswith("ok\n") for answer in answers)


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_serve_http_on_leaving_drops_whoever_waits_and_the_port(sent: bytes) -> None:
    async with _serving() as endpoint:
        streams = await asyncio.open_connection(endpoint.host, endpoint.port)
        streams[1].write(sent)
        if sent.endswith(b"\r\n\r\n"):
            await streams[0].readuntil(b"\r\n\r\nok\n")
        await _get(endpoint, "GET /healthz HTTP/1.1")
        watch = Stopwatch()
    assert watch.seconds < server.END_TIMEOUT
    assert await _is_cut(streams)
    streams[1].transport.abort()
    with pytest.raises(OSError):
        await asyncio.open_connection(endpoint.host, endpoint.port)


async def test_serve_http_on_leaving_lets_a_request_in_flight_finish() -> None:
    is_called, may_end = asyncio.Event(), asyncio.Event()

    async def wait(_: Request) -> Response:
        is_called.set()
        await may_end.wait()
        return PlainTextResponse("late\n")

    async with _serving(Route("/wait", wait)) as endpoint:
        answer = asyncio.create_task(_get(endpoint, "GET /wait HTTP/1.1"))
        await is_called.wait()
        asyncio.get_running_loop().call_later(0.3, may_end.set)
    assert (await answer).endswith("late\n")


async def test_serve_http_on_leaving_cuts_who_reads_nothing_and_requests_that_do_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_called = asyncio.Event()
    ended = asyncio.Event()

    async def wait(_: Request) -> Response:
        is_called.set()
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    monkeypatch.setattr(server, "END_TIMEOUT", 0.3)
    requests = [b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"]
    async with _serving(Route("/large", _answer_much), Route("/wait", wait)) as endpoint:
        opened = [await asyncio.open_connection(endpoint.host, endpoint.port) for _ in requests]
        for request, (_, writer) in zip(requests, opened, strict=True):
            writer.write(request)
        await opened[0][0].readuntil(b"\r\n\r\n")
        await is_called.wait()
        watch = Stopwatch()
    assert watch.seconds < 2
    assert ended.is_set()
    for _, writer in opened:
        writer.transport.abort()


async def test_serve_http_leaves_signals_alone() -> None:
    def handlers() -> list[object]:
        return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    before = handlers()
    async with _serving() as endpoint:
        await _get(endpoint, "GET /healthz HTTP/1.1")
        assert handlers() == before
    assert handlers() == before


async def test_serve_http_turned_off_yields_none() -> None:
    async with serve_http(HttpSettings(port=None), build_app(health_routes(lambda: None))) as none:
        assert none is None


async def test_serve_http_port_in_use_names_the_key() -> None:
    async with _serving() as endpoint:
        settings = HttpSettings(port=endpoint.port)
        with pytest.raises(ConfigError, match=r"http\.port: .*cannot be bound.*--http-port"):
            async with serve_http(settings, build_app(health_routes(lambda: None))):
                pass


async def test_serve_http_address_of_another_machine_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"http\.port: .*cannot be bound"):
        async with _serving(host="192.0.2.1"):
            pass


async def test_serve_http_listens_at_all_addresses_of_its_host_at_one_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def two(*_: object, **__: object) -> list[object]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in ("127.0.0.1", "192.0.2.1", "127.0.0.2")
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", two)
    async with _serving(host="several") as endpoint:
        for host in ("127.0.0.1", "127.0.0.2"):
            there = HttpEndpoint(host, endpoint.port)
            assert (await _get(there, "GET /healthz HTTP/1.1")).endswith("ok\n")


@pytest.mark.parametrize("host,shown", [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_endpoint_is_shown_as_in_a_url(host: str, shown: str) -> None:
    assert HttpEndpoint(host, 7280).address == f"{shown}:7280"


async def test_serve_http_error_in_the_block_passes_unchanged() -> None:
    with pytest.raises(KeyError):
        async with _serving():
            raise KeyError


_MUCH = 64 * 1024 * 1024


async def _answer_much(_: Request) -> Response:
    return Response(b"x" * _MUCH)
