"""uvicorn inside the server's own event loop: the port, and how it begins and ends.

Whoever enters `serve_http` owns the endpoint: on leaving, the port is closed, requests in flight
get a moment to finish, and no connection and no task is left. Signals are none of its business.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import cast

import uvicorn
from starlette.applications import Starlette

from aetheris_server.config import ConfigError, HttpSettings
from aetheris_server.loops import end_tasks
from aetheris_server.telemetry import get_logger
from aetheris_server.web.connections import BoundedConnection

END_TIMEOUT = 1.0
_KEEP_ALIVE_TIMEOUT = 5
_HEAD_MAX_BYTES = 16 * 1024
# The resolver may name addresses that this machine does not have: ::1 for localhost, without IPv6.
_NO_SUCH_ADDRESS = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """Where the endpoint listens."""

    host: str
    port: int

    @property
    def address(self) -> str:
        """`host:port`, as a URL has it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Server(uvicorn.Server):
    """uvicorn's server; tells when it has begun, and does not handle signals, as `Shutdown` does.

    Attributes:
        begun: Done when connections are accepted.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.get_running_loop().create_future()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set_result(None)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def serve_http(settings: HttpSettings, app: Starlette) -> AsyncGenerator[HttpEndpoint | None]:
    """Serve until the block is left; then requests in flight get END_TIMEOUT.

    Yields where it listens (the port that was picked, if the settings leave that open), or None
    where the settings turn it off.

    Raises:
        ConfigError: The address cannot be bound.
    """
    if settings.port is None:
        yield None
        return
    try:
        listeners = await _listen(settings.host, settings.port)
    except OSError as error:
        raise ConfigError(
            "http.port",
            f"{settings.host}:{settings.port} cannot be bound: {error.strerror or error};"
            " --http-port names another port, or -1 for none",
        ) from error
    host, port = listeners[0].getsockname()[:2]
    server = _Server(_configure(app))
    serving = asyncio.create_task(server.serve(listeners), name="http")
    try:
        # One that is told to end before it has begun may leave the port open.
        await asyncio.wait([serving, server.begun], return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield HttpEndpoint(host, port)
    finally:
        await _end(server, serving)
        for listener in listeners:
            listener.close()


def _configure(app: Starlette) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedConnection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        # Given, so that variables of the environment that are meant for others change nothing.
        workers=1,
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        # Its warnings are about clients: any of them could fill the log.
        log_level="error",
        timeout_keep_alive=_KEEP_ALIVE_TIMEOUT,
        h11_max_incomplete_event_size=_HEAD_MAX_BYTES,
    )


async def _end(server: _Server, serving: asyncio.Task[None]) -> None:
    server.should_exit = True
    try:
        await asyncio.wait([serving], timeout=END_TIMEOUT)
    finally:
        state = server.server_state
        for connection in list(state.connections):
            cast("BoundedConnection", connection).cut()
        await end_tasks([serving, *state.tasks])
    if not serving.cancelled() and (error := serving.exception()) is not None:
        _log.error("the http endpoint failed", exc_info=error)


async def _listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen at every address of a host: n >= 1, of one port, also where that is 0.

    Raises:
        OSError: The host has no address here, or the port is taken on one of them.
    """
    found = await asyncio.get_running_loop().getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    listeners: list[socket.socket] = []
    missing: OSError | None = None
    for family, _, _, _, (address, _, *rest) in dict.fromkeys(found):
        picked = listeners[0].getsockname()[1] if listeners else port
        try:
            listeners.append(socket.create_server((address, picked, *rest), family=family))
        except OSError as error:
            if error.errno not in _NO_SUCH_ADDRESS:
                for listener in listeners:
                    listener.close()
                raise
            missing = error
    if not listeners and missing is not None:
        raise missing
    return listeners
