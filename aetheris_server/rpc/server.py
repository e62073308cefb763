"""The gRPC servers of a process: a public port and one for the other hosts, health, and an orderly
end.

The public port has the public services, health and reflection. The internal one has what hosts ask
each other, each call with the key of the cluster (`credentials`), and health, by which a host finds
out whether it is reached there.

Plain text: TLS is for a proxy in front, until it has its own settings.
"""

import asyncio
import errno
import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import OVERALL_HEALTH
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from aetheris_server.config import ConfigError, GrpcSettings, InternalSettings, internal_port
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.rpc.channels import CHANNEL_OPTIONS
from aetheris_server.rpc.handlers import Calls, RpcService
from aetheris_server.telemetry import get_logger

__all__ = ["RpcServer", "serve_grpc", "serve_internal"]

# A handler's last response leaves after the handler does.
_FLUSH_TIMEOUT = 0.25
# Seconds beyond the time that calls get: what is left then is cut off by another stop.
_NEVER = 3600.0
_FOLLOW_INTERVAL = 0.25
# What a host may add to a request that it passes on to another one.
_ENVELOPE_BYTES = 64 * 1024
# What hosts say to each other may take, however little clients may: tasks, and calls of aggregates.
_MIN_INTERNAL_BYTES = 8 * 1024 * 1024
# When the internal port closes, polls have ended, and what is cut off is asked again elsewhere.
_INTERNAL_GRACE = 2.0
_REACH_TIMEOUT = 1.0
_IS_EXCLUSIVE = ("grpc.so_reuseport", 0)
_IS_SHARED = ("grpc.so_reuseport", 1)

_log = get_logger(__name__)


class RpcServer:
    """A server that listens. `serve_grpc` makes it."""

    def __init__(
        self,
        server: grpc.aio.Server,
        calls: Calls,
        health_servicer: health.HealthServicer,
        names: Sequence[str],
        host: str,
        port: int,
    ) -> None:
        self._server = server
        self._calls = calls
        self._health = health_servicer
        self._names = names
        self.host = host
        self.port = port

    @property
    def address(self) -> str:
        """Where it listens: `host:port`."""
        return _join(self.host, self.port)

    async def is_reached_at(self, address: str) -> bool:
        """Whether who calls `host:port` comes to this very server; False if nobody answers there.

        Asks there for the health of a service that only this server has heard of.
        """
        if address == self.address:
            return True
        name = f"reached-{secrets.token_hex(16)}"
        response = health_pb2.HealthCheckResponse
        await self._health.set(name, response.SERVING)
        try:
            async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
                # The package has no types for its stub.
                stub: Any = health_pb2_grpc.HealthStub(channel)
                answer: health_pb2.HealthCheckResponse = await stub.Check(
                    health_pb2.HealthCheckRequest(service=name),
                    timeout=_REACH_TIMEOUT,
                    wait_for_ready=True,
                )
        except grpc.aio.AioRpcError:
            return False
        finally:
            await self._health.set(name, response.SERVICE_UNKNOWN)
        return answer.status == response.SERVING

    async def mark_starting(self) -> None:
        """Answer health checks with NOT_SERVING until `begin_serving`."""
        await self._set_health(is_serving=False)

    async def begin_serving(self) -> None:
        """Answer health checks with SERVING from now on."""
        await self._set_health(is_serving=True)

    async def follow(self, is_ready: Callable[[], bool]) -> None:
        """After `begin_serving`: answer health checks with what `is_ready` says until cancelled."""
        was_ready = True
        while not is_cancelled():
            if (is_serving := is_ready()) != was_ready:
                await self._set_health(is_serving=is_serving)
                was_ready = is_serving
            await pause(_FOLLOW_INTERVAL)

    async def _set_health(self, *, is_serving: bool) -> None:
        response = health_pb2.HealthCheckResponse
        for name in (OVERALL_HEALTH, *self._names):
            await self._health.set(name, response.SERVING if is_serving else response.NOT_SERVING)

    async def begin_drain(self) -> None:
        """Answer health checks with NOT_SERVING from now on; calls are still answered."""
        await self._health.enter_graceful_shutdown()

    async def stop(self, grace: float) -> None:
        """Refuse new calls, let those in flight finish for up to `grace` seconds, then close."""
        await self.begin_drain()
        # gRPC ends the process if it is told to stop while it is stopping: whoever is through first
        # destroys what the other still uses. So the first time ends before the second begins.
        stopping = asyncio.create_task(self._server.stop(grace + _NEVER))
        try:
            async with asyncio.timeout(grace):
                await self._calls.wait_idle()
        except TimeoutError:
            _log.warning("calls were cut off", grace_seconds=grace)
        finally:
            stopping.cancel()
            await asyncio.wait((stopping,))
            # Else a health watch, which never ends by itself, would hold the port for all the time.
            await self._server.stop(min(grace, _FLUSH_TIMEOUT))


@dataclass(frozen=True, slots=True)
class _Port:
    """Where a server listens, and what it bounds there.

    Attributes:
        name: Of its section in the settings, and in metrics.
        flags: That name another address.
        max_message_bytes: Of a request.
        max_calls: In flight; of those that are not of a host of this cluster.
        max_streams: Of one connection; None is no bound.
        grace: Seconds that calls in flight get at the end.
        is_shared: Whether other processes of this server listen there too.
    """

    name: str
    flags: str
    host: str
    port: int
    max_message_bytes: int
    max_calls: int
    max_streams: int | None
    grace: float
    is_shared: bool = False


@asynccontextmanager
async def serve_grpc(
    settings: GrpcSettings, services: Sequence[RpcService], *, is_shared: bool = False
) -> AsyncGenerator[RpcServer]:
    """Serve the public services until the block is left; then calls in flight get
    `settings.drain_timeout`.

    Args:
        settings: Of the public port.
        services: All that are to be there.
        is_shared: Whether others of this account may listen at the port too, who then get a part
            of the connections.

    Raises:
        ConfigError: The address cannot be bound.
    """
    port = _Port(
        name="grpc",
        flags="--port and --host",
        host=settings.host,
        port=settings.port,
        max_message_bytes=int(settings.max_message_bytes),
        max_calls=settings.max_calls,
        max_streams=settings.max_streams,
        grace=settings.drain_timeout,
        is_shared=is_shared,
    )
    async with _serve(port, services, is_listed=True) as server:
        yield server


@asynccontextmanager
async def serve_internal(
    settings: InternalSettings, public: GrpcSettings, services: Sequence[RpcService]
) -> AsyncGenerator[RpcServer]:
    """Serve the internal services until the block is left.

    Args:
        settings: Of the internal port.
        public: What hosts pass on to each other is bounded there.
        services: All with credentials.

    Raises:
        ConfigError: The address cannot be bound.
    """
    assert all(service.credentials is not None for service in services)
    port = _Port(
        name="internal",
        flags="--internal-port and --internal-host",
        host=settings.host,
        port=internal_port(settings, public),
        max_message_bytes=max(public.max_message_bytes, _MIN_INTERNAL_BYTES) + _ENVELOPE_BYTES,
        max_calls=public.max_calls,
        max_streams=None,
        grace=min(public.drain_timeout, _INTERNAL_GRACE),
    )
    async with _serve(port, services, is_listed=False) as server:
        yield server


@asynccontextmanager
async def _serve(
    port: _Port, services: Sequence[RpcService], *, is_listed: bool
) -> AsyncGenerator[RpcServer]:
    """Serve until the block is left.

    Args:
        port: Where.
        services: What.
        is_listed: Whether anybody may ask which services there are.
    """
    calls = Calls(port.name, port.max_calls)
    options = _options(port)
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers([calls.handlers_of(service) for service in services])
    health_servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = [service.name for service in services]
    if is_listed:
        health_name = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
        _serve_reflection(server, [*names, health_name])
    bound = _bind(server, options, port)
    running = RpcServer(server, calls, health_servicer, names, port.host, bound)
    await running.mark_starting()
    await server.start()
    try:
        yield running
    finally:
        await running.stop(port.grace)


def _serve_reflection(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Let anybody ask which services there are, by both names of the one protocol: some tools know
    the first alone, some the second. Only the first is listed, as there are messages for it.
    """
    # The package has no types for it.
    servicer: Any = reflection.aio.ReflectionServicer([*names, reflection.SERVICE_NAME])
    ask = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection"):
        handlers = {"ServerReflectionInfo": ask}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])


def _bind(server: grpc.aio.Server, options: Sequence[tuple[str, int]], port: _Port) -> int:
    address = _join(port.host, port.port)
    try:
        if _IS_EXCLUSIVE in options:
            _check_free(port.host, port.port)
        return server.add_insecure_port(address)
    except (OSError, RuntimeError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        why = f"{address} cannot be bound: {problem}; {port.flags} name another address"
        raise ConfigError(f"{port.name}.port", why) from error


def _check_free(host: str, port: int) -> None:
    """GRPC is content with one of the addresses of a name (localhost: ::1 and 127.0.0.1). A program
    that has the port at another of them would get a part of the calls.

    Raises:
        OSError: The name is unknown, or one of its addresses is taken.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, _, _, _, (address, *rest) in found:
        try:
            socket.create_server((str(address), *rest), family=family).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _options(port: _Port) -> list[tuple[str, int]]:
    streams = port.max_streams
    return [
        *([("grpc.max_concurrent_streams", streams)] if streams is not None else []),
        ("grpc.max_receive_message_length", port.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Calls that came and that this program has not taken yet. By default gRPC cancels some of
        # them from 1,000 on, which a worker cannot tell from a broken connection.
        ("grpc.server.max_pending_requests", port.max_calls),
        ("grpc.server.max_pending_requests_hard_limit", port.max_calls),
        # A second server on the port is an error, never a silent split of the calls. Where the port
        # is shared, the supervisor has reserved it, and so has seen to that.
        _IS_SHARED if port.is_shared else _IS_EXCLUSIVE,
        # A poll is silent for a minute: clients may ping meanwhile, and the server finds out by
        # pings of its own that a client has vanished.
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
