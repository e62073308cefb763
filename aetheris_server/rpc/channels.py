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

__all__ = ["CHANNEL_OPTIONS", "ChannelPool", "HostStubs"]

# Longer than any call between hosts, so that an idle channel has none in flight.
_IDLE_SECONDS = 300.0
# Of log lines about one host.
_LOG_INTERVAL = 10.0
# A host that dies is asked for no longer than its lease lasts, which is 3 s by default.
_SILENCE_SECONDS = 10.0

CHANNEL_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # Calls that wait for a minute find out that their host has vanished, with its machine say.
    ("grpc.keepalive_time_ms", 6_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    # A host that comes back is found again soon; routing waits between its attempts.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # What one attempt may take; a host that is busy may need a while.
    ("grpc.min_reconnect_backoff_ms", 1_000),
    # With another address too, as a container's; by default gRPC asks for it every 30 s at most.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A proxy that the environment names is for places outside of the hosts' network.
    ("grpc.enable_http_proxy", 0),
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
    _logged_at: float = -_LOG_INTERVAL
    # The first of the calls since the last answer, and the last of them, that found nobody there.
    _silent_since: float | None = None
    _silent_until: float = 0.0

    def __post_init__(self) -> None:
        self.history = HistoryServiceStub(self.channel)
        self.matching = MatchingServiceStub(self.channel)

    def note_answer(self) -> None:
        """The host is there."""
        self._silent_since = None

    def note_silence(self, problem: str) -> None:
        """Tell the operator, once in a while, that calls have come to nobody for long: the host may
        live, and advertise an address that is good where it is and nowhere else.
        """
        now = time.monotonic()
        if self._silent_since is None or now - self._silent_until > _IDLE_SECONDS:
            self._silent_since = now
        self._silent_until = now
        seconds = now - self._silent_since
        if seconds >= _SILENCE_SECONDS and self._may_log(now):
            _log.error(
                "a host of this cluster is not reached from here; if it lives, see its"
                " internal.advertised_address",
                address=self.address,
                seconds=round(seconds),
                error=problem,
            )

    def note_stranger(self) -> None:
        """Tell the operator, once in a while, that who listens there is no host of this cluster."""
        if self._may_log(time.monotonic()):
            _log.error(
                "at the address of a host of this cluster is another program, or a host of another"
                " cluster, which refuses this one; see internal.advertised_address",
                address=self.address,
            )

    def _may_log(self, now: float) -> bool:
        if now - self._logged_at < _LOG_INTERVAL:
            return False
        self._logged_at = now
        return True


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
                    grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS),
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
