import asyncio

import pytest

from aetheris_server.config import ConfigError, HttpSettings
from aetheris_server.telemetry import HttpEndpoint, counter, serve_http

_requests = counter("test_requests", "Requests of this test.", ["rpc"])


async def _get(endpoint: HttpEndpoint, request: str) -> str:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.write(f"{request}\r\nHost: x\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    return answer.decode()


@pytest.mark.parametrize(
    "request_line,status,body",
    [
        ("GET /healthz HTTP/1.1", "200 OK", "ok\n"),
        ("GET /readyz?verbose=1 HTTP/1.1", "200 OK", "ok\n"),
        ("HEAD /healthz HTTP/1.1", "200 OK", ""),
        ("GET /other HTTP/1.1", "404 Not Found", "there are /metrics, /healthz and /readyz\n"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed", "expected GET or HEAD\n"),
    ],
)
async def test_serve_http_answers(request_line: str, status: str, body: str) -> None:
    async with serve_http(HttpSettings(port=0), lambda: None) as endpoint:
        assert endpoint is not None
        answer = await _get(endpoint, request_line)
    assert answer.startswith(f"HTTP/1.1 {status}\r\n")
    assert answer.partition("\r\n\r\n")[2] == body


async def test_serve_http_not_ready_says_what_for() -> None:
    async with serve_http(HttpSettings(port=0), lambda: "shards") as endpoint:
        assert endpoint is not None
        answer = await _get(endpoint, "GET /readyz HTTP/1.1")
    assert answer.startswith("HTTP/1.1 503 ")
    assert answer.endswith("waiting for shards\n")


async def test_serve_http_metrics_has_what_was_counted() -> None:
    _requests.labels("start").inc(3)
    async with serve_http(HttpSettings(port=0), lambda: None) as endpoint:
        assert endpoint is not None
        answer = await _get(endpoint, "GET /metrics HTTP/1.1")
    assert 'aetheris_test_requests_total{rpc="start"} 3.0' in answer


async def test_serve_http_on_leaving_drops_an_unfinished_request_and_the_port() -> None:
    async with serve_http(HttpSettings(port=0), lambda: None) as endpoint:
        assert endpoint is not None
        reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
        writer.write(b"GET /hea")
        await writer.drain()
        await _get(endpoint, "GET /healthz HTTP/1.1")
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError):
        await asyncio.open_connection(endpoint.host, endpoint.port)


async def test_serve_http_turned_off_yields_none() -> None:
    async with serve_http(HttpSettings(port=None), lambda: None) as endpoint:
        assert endpoint is None


async def test_serve_http_port_in_use_names_the_key() -> None:
    async with serve_http(HttpSettings(port=0), lambda: None) as endpoint:
        assert endpoint is not None
        with pytest.raises(ConfigError, match=r"http\.port: .*cannot be bound.*--http-port"):
            async with serve_http(HttpSettings(port=endpoint.port), lambda: None):
                pass


async def test_serve_http_error_in_the_block_passes_unchanged() -> None:
    with pytest.raises(KeyError):
        async with serve_http(HttpSettings(port=0), lambda: None):
            raise KeyError
