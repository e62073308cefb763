"""The channels of a connection: opened as calls need them, closed again when they do not.

A server has a bound on the calls in flight of one channel, at which further ones wait in gRPC:
results that a client waits for must hold up neither its other calls nor its workers. So every call
is counted on the channel that it is made on, and one too many is made on a further channel.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from aetheris.api.v1.operator_service_pb2_grpc import OperatorServiceStub
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris.api.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from aetheris_client.reachability import is_loopback

# Below what a server takes from one connection at a time: `grpc.max_streams`, 250 by default.
CALLS_PER_CHANNEL: Final = 200

# Seconds that a channel besides the first is kept without a call; the next peak opens it again.
IDLE_TIMEOUT: Final = 60.0

_MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024

# A server that restarts is back within seconds, so reconnecting is tried often. The pings find a
# host that vanished without a word, which would otherwise hold a long poll until its deadline.
_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    # The server bounds its answers: a page of large events may be many times one event.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", _MAX_REQUEST_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # What one attempt may take, TLS over a slow link say: with less, none would ever succeed.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A server that is back at another address, as a container's. By default gRPC would look up the
    # address of the name every 30 s at most.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # Retries are `Connection`'s affair; gRPC's own would double them.
    ("grpc.enable_retries", 0),
    # Else channels to the same address share one connection.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """How the connection is encrypted. PEM throughout.

    Attributes:
        server_root_ca_cert: Whom to trust; the system's roots where None.
        client_cert: Proves who this client is; needs client_private_key.
        client_private_key: The key of client_cert.
        domain: The name to expect in the server's certificate, where it is not the address.
    """

    server_root_ca_cert: bytes | None = None
    client_cert: bytes | None = None
    client_private_key: bytes | None = None
    domain: str | None = None


def open_channel(address: str, tls: TlsConfig | None) -> grpc.aio.Channel:
    """A channel of the running event loop, which connects by itself."""
    options: list[tuple[str, Any]] = list(_OPTIONS)
    if is_loopback(address):
        # gRPC would send even these to the proxy that the environment names.
        options.append(("grpc.enable_http_proxy", 0))
    if tls is None:
        return grpc.aio.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=tls.server_root_ca_cert,
        private_key=tls.client_private_key,
        certificate_chain=tls.client_cert,
    )
    if tls.domain:
        options.append(("grpc.ssl_target_name_override", tls.domain))
    return grpc.aio.secure_channel(address, credentials, options=options)


class Stubs:
    """What can be called on one channel."""

    __slots__ = ("operator_service", "worker_service", "workflow_service")

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.workflow_service = WorkflowServiceStub(channel)
        self.worker_service = WorkerServiceStub(channel)
        self.operator_service = OperatorServiceStub(channel)


class LentChannel:
    """A channel of a pool, and who uses it.

    Attributes:
        call_count: Calls that may be in flight on it; with none it is idle.
        stays: Whether it is kept however long it is idle, as the first of its pool is.
        idle_timer: Drops it, where it is idle and does not stay.
    """

    __slots__ = ("call_count", "channel", "idle_timer", "stays", "stubs")

    def __init__(self, channel: grpc.aio.Channel, *, stays: bool) -> None:
        self.channel = channel
        self.stubs = Stubs(channel)
        self.stays = stays
        self.call_count = 0
        self.idle_timer: asyncio.TimerHandle | None = None


class ChannelPool:
    """Channels of one event loop, each a connection of its own. The first one stays."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, open_one: Callable[[], grpc.aio.Channel]
    ) -> None:
        self._loop = loop
        self._open_one = open_one
        self._channels: list[LentChannel] = []
        self._closing: set[asyncio.Task[None]] = set()

    def take(self, call_count: int = 1) -> LentChannel:
        """The first channel with room for so many calls more; `give_back` follows."""
        for lent in self._channels:
            if lent.call_count + call_count <= CALLS_PER_CHANNEL:
                break
        else:
            lent = LentChannel(self._open_one(), stays=not self._channels)
            self._channels.append(lent)
        lent.call_count += call_count
        if lent.idle_timer is not None:
            lent.idle_timer.cancel()
            lent.idle_timer = None
        return lent

    def give_back(self, lent: LentChannel, call_count: int = 1) -> None:
        """So many calls that it was taken for have ended."""
        lent.call_count -= call_count
        if lent.call_count == 0 and not lent.stays:
            lent.idle_timer = self._loop.call_later(IDLE_TIMEOUT, self._drop, lent)

    def _drop(self, lent: LentChannel) -> None:
        self._channels.remove(lent)
        # There is nothing to wait for: no call is on it. A stub may outlive its use.
        closing = self._loop.create_task(lent.channel.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all; calls in flight are cancelled."""
        for lent in self._channels:
            lent.stays = True
            if lent.idle_timer is not None:
                lent.idle_timer.cancel()
        for lent in self._channels:
            await lent.channel.close()
        await asyncio.gather(*self._closing)
