"""The HTTP endpoint for scrapers and probes: /metrics, /healthz and /readyz.

One request per connection, each under a deadline; it carries a few requests a second, so it favours
being short over being fast. Whoever enters `serve_http` owns the endpoint: on leaving, the port is
closed and no request is left running.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from aetheris_server.config import ConfigError, HttpSettings
from aetheris_server.loops import end_tasks
from aetheris_server.telemetry.logs import get_logger

_REQUEST_TIMEOUT = 10.0
_TEXT = "text/plain; charset=utf-8"

Readiness = Callable[[], str | None]
"""None when the process can serve, else what it still waits for."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """Where the endpoint listens."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class _Response:
    status: HTTPStatus
    body: bytes
    content_type: str = _TEXT


@asynccontextmanager
async def serve_http(
    settings: HttpSettings, readiness: Readiness
) -> AsyncGenerator[HttpEndpoint | None]:
    """Serve /metrics, /healthz and /readyz until the block is left.

    Yields where it listens (the port that was picked, if the settings leave that open), or None
    where the settings turn it off.

    Raises:
        ConfigError: The address cannot be bound.
    """
    if settings.port is None:
        yield None
        return
    requests: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = asyncio.create_task(_answer(reader, writer, readiness))
        requests.add(request)
        request.add_done_callback(requests.discard)

    try:
        server = await asyncio.start_server(accept, settings.host, settings.port)
    except OSError as error:
        raise ConfigError(
            "http.port",
            f"{settings.host}:{settings.port} cannot be bound: {error.strerror or error};"
            " --http-port names another port, or -1 for none",
        ) from error
    host, port = server.sockets[0].getsockname()[:2]
    try:
        yield HttpEndpoint(host, port)
    finally:
        server.close()
        await end_tasks(list(requests))


async def _answer(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, readiness: Readiness
) -> None:
    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(_render(head, _respond(head, readiness)))
            await writer.drain()
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        # The other side went away, or does not speak HTTP.
        _log.debug("http request dropped", error=repr(error))
    except Exception:  # noqa: BLE001 - a fault in one request must not end the endpoint
        _log.exception("http request failed")
    finally:
        writer.close()


def _respond(head: bytes, readiness: Readiness) -> _Response:
    method, _, rest = head.partition(b" ")
    if method not in (b"GET", b"HEAD"):
        return _Response(HTTPStatus.METHOD_NOT_ALLOWED, b"expected GET or HEAD\n")
    match rest.partition(b" ")[0].partition(b"?")[0]:
        case b"/metrics":
            return _Response(HTTPStatus.OK, generate_latest(REGISTRY), CONTENT_TYPE_LATEST)
        case b"/healthz":
            return _Response(HTTPStatus.OK, b"ok\n")
        case b"/readyz":
            waiting_for = readiness()
            if waiting_for is None:
                return _Response(HTTPStatus.OK, b"ok\n")
            return _Response(
                HTTPStatus.SERVICE_UNAVAILABLE, f"waiting for {waiting_for}\n".encode()
            )
        case _:
            return _Response(HTTPStatus.NOT_FOUND, b"there are /metrics, /healthz and /readyz\n")


def _render(head: bytes, response: _Response) -> bytes:
    header = (
        f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
        f"Content-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    return header if head.startswith(b"HEAD ") else header + response.body
