"""Connections to the other hosts of the cluster: one for each address, closed when out of use."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import grpc

from aetheris.server.v1.history_service_pb2_grpc import HistoryServiceStub
from aetheris.server.v1.matching_service_pb2_grpc import MatchingServiceStub
from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.telemetry import get_logger

__all__ = ["ChannelPool", "HostStubs"]

# Longer than any call between hosts, so that an idle channel has none in flight.
_IDLE_SECONDS = 300.0
_REFUSAL_INTERVAL = 10.0

_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Calls that wait for a minute find out that their host has vanished, with its machine say.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # A host that comes back is found again soon; routing waits between its attempts.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
]


_log = get_logger(__name__)


@dataclass(slots=True)
class HostStubs:
    """What one host can be asked. `metadata` goes along with every call."""

    address: str
    channel: grpc.aio.Channel
    metadata: Sequence[tuple[str, bytes]]
    history: HistoryServiceStub = field(init=False)
    matching: MatchingServiceStub = field(init=False)
    last_used: float = field(default_factory=time.monotonic)
    _refused_at: float = -_REFUSAL_INTERVAL

    def __post_init__(self) -> None:
        self.history = HistoryServiceStub(self.channel)
        self.matching = MatchingServiceStub(self.channel)

    def note_refusal(self) -> None:
        """Tell the operator, once in a while, that who listens there is of another cluster."""
        now = time.monotonic()
        if now - self._refused_at >= _REFUSAL_INTERVAL:
            self._refused_at = now
            _log.error(
                "the address of a host of this cluster is that of a host of another cluster, which"
                " refuses this one; see internal.advertised_address of both",
                address=self.address,
            )


class ChannelPool:
    """The channels of one process. A context manager: leaving it closes them."""

    def __init__(self, credentials: PeerCredentials) -> None:
        self._metadata = credentials.metadata
        self._hosts: dict[str, HostStubs] = {}

    @property
    def addresses(self) -> frozenset[str]:
        """The hosts that there is a channel to."""
        return frozenset(self._hosts)

    async def stubs(self, address: str) -> HostStubs:
        """The stubs of a host; connects when they are first called."""
        host = self._hosts.get(address)
        if host is None:
            # Hosts come seldom, and where none comes there are no more channels than before.
            await self._close_idle()
            host = self._hosts.setdefault(
                address,
                HostStubs(
                    address,
                    grpc.aio.insecure_channel(address, options=_OPTIONS),
                    self._metadata,
                ),
            )
        host.last_used = time.monotonic()
        return host

    async def close(self) -> None:
        """Close every channel; calls in flight fail."""
        while self._hosts:
            _, host = self._hosts.popitem()
            await host.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _close_idle(self) -> None:
        limit = time.monotonic() - _IDLE_SECONDS
        idle = [address for address, host in self._hosts.items() if host.last_used < limit]
        for address in idle:
            await self._hosts.pop(address).channel.close()
