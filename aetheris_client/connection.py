"""A connection to a cluster: the channels, the stubs, and how a call is tried again.

Every call has a deadline. Until then UNAVAILABLE is tried again, with exponential backoff and
jitter; a long poll also where a single attempt ran out of time. Nothing else is. That is safe for
writes too: they carry a request id, so the server does each once.
"""

import asyncio
import math
import random
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import grpc

from aetheris.api.v1.operator_service_pb2_grpc import OperatorServiceStub
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris.api.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from aetheris_client.errors import (
    ConnectionClosedError,
    DeadlineExceededError,
    NotReadyError,
    RpcError,
    UnavailableError,
)
from aetheris_client.reachability import is_loopback, why_unreachable
from aetheris_client.rpc_errors import from_rpc_error

Request = TypeVar("Request")
Response = TypeVar("Response")

# Below what a server takes from one connection at a time: `grpc.max_streams`, 250 by default.
_CALLS_PER_CHANNEL: Final = 200

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024

# A server that restarts is back within seconds, so reconnecting is tried often. The pings find a
# host that vanished without a word, which would otherwise hold a long poll until its deadline.
_CHANNEL_OPTIONS: Final[tuple[tuple[str, int | str], ...]] = (
    # The server bounds its answers: a page of large events may be many times one event.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", MAX_REQUEST_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Retries are this module's affair; gRPC's own would double them.
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


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits between attempts, in seconds: doubling from `initial` up to `maximum`, with jitter."""

    initial: float = 0.05
    maximum: float = 2.0

    def wait_before(self, attempt: int) -> float:
        """The wait before a further attempt; `attempt` is 1 before the second one."""
        ceiling = min(self.maximum, self.initial * 2 ** min(attempt - 1, 30))
        # Never near zero, so that a server that refuses at once is not asked in a hot loop.
        return ceiling * random.uniform(0.5, 1.0)


class _Channel:
    """A channel of one event loop, and the stubs that use it.

    Attributes:
        call_count: Calls in flight that were made by `Connection.call`.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.workflow_service = WorkflowServiceStub(channel)
        self.worker_service = WorkerServiceStub(channel)
        self.operator_service = OperatorServiceStub(channel)
        self.call_count = 0


class _Channels:
    """The channels of one event loop, each of them a connection of its own.

    A server has a bound on the calls in flight of one connection, at which further ones wait in
    gRPC: results that a client waits for must hold up neither its other calls nor its workers.
    """

    def __init__(self, open_channel: Callable[[], grpc.aio.Channel]) -> None:
        self._open = open_channel
        self._of_workers: _Channel | None = None
        self._of_calls: list[_Channel] = []
        self._by_method: dict[object, _Channel] = {}

    def of_workers(self) -> _Channel:
        """That of workers' polls and answers, which are few."""
        if self._of_workers is None:
            self._of_workers = _Channel(self._open())
        return self._of_workers

    def of_calls(self) -> _Channel:
        """The first that has room for one more call."""
        for channel in self._of_calls:
            if channel.call_count < _CALLS_PER_CHANNEL:
                return channel
        channel = _Channel(self._open())
        self._of_calls.append(channel)
        for method in vars(channel.workflow_service).values():
            self._by_method[method] = channel
        return channel

    def find(self, method: object) -> _Channel | None:
        """The channel of a method whose calls are counted."""
        return self._by_method.get(method)

    async def close(self) -> None:
        """Close all; calls in flight are cancelled."""
        for channel in (*self._of_calls, *filter(None, [self._of_workers])):
            await channel.channel.close()


class Connection:
    """A connection to a cluster, shared by every client and worker that is given it.

    gRPC binds a channel to the event loop that opens it, so each loop that uses the connection gets
    channels of its own, when it first does: one client serves a second `asyncio.run` as well.
    """

    def __init__(
        self, address: str, tls: TlsConfig | bool = False, backoff: Backoff | None = None
    ) -> None:
        self.address = address
        self.backoff = backoff or Backoff()
        self._tls = (TlsConfig() if tls else None) if isinstance(tls, bool) else tls
        self._channels: dict[asyncio.AbstractEventLoop, _Channels] = {}
        self._is_closed = False

    @property
    def workflow_service(self) -> WorkflowServiceStub:
        """For the next call in the running event loop alone, as the other two are."""
        return self._here().of_calls().workflow_service

    @property
    def worker_service(self) -> WorkerServiceStub:
        """For workers' polls and answers."""
        return self._here().of_workers().worker_service

    @property
    def operator_service(self) -> OperatorServiceStub:
        """For operators."""
        return self._here().of_calls().operator_service

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def wait_ready(self, timeout: float) -> None:
        """Wait until a server takes calls, at most so many seconds.

        Raises:
            UnavailableError: None did; says why, which may take two more seconds to find out.
        """
        try:
            await asyncio.wait_for(self._here().of_calls().channel.channel_ready(), timeout)
        except TimeoutError:
            why = await self._why_unreachable()
            raise UnavailableError(
                f"no server answers at {self.address} within {timeout:g} s: {why}"
            ) from None

    async def _why_unreachable(self) -> str:
        if self._tls is None:
            return await why_unreachable(self.address, None, None)
        try:
            context = _ssl_context(self._tls)
        except (ssl.SSLError, UnicodeDecodeError) as error:
            return f"server_root_ca_cert holds no certificates in PEM: {error}"
        return await why_unreachable(self.address, context, self._tls.domain)

    async def call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float,
        attempt_timeout: float = math.inf,
    ) -> Response:
        """Send a request and await its response, trying again while no server is available.

        Args:
            method: Of one of the stubs.
            request: Sent again unchanged; a write has its request id.
            timeout: Seconds for all attempts together.
            attempt_timeout: Seconds for one attempt, after which it is made again: for long polls,
                which a server answers sooner than that.

        Raises:
            RpcError: A typed leaf where the server attached a detail. When the time is up, what
                the last attempt met: UnavailableError or DeadlineExceededError.
        """
        loop = asyncio.get_running_loop()
        channels = self._channels.get(loop)
        channel = channels.find(method) if channels is not None else None
        if channel is None:
            return await self._try(method, request, timeout, attempt_timeout)
        channel.call_count += 1
        try:
            return await self._try(method, request, timeout, attempt_timeout)
        finally:
            channel.call_count -= 1

    async def _try(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Response],
        request: Request,
        timeout: float,
        attempt_timeout: float,
    ) -> Response:
        deadline = asyncio.get_running_loop().time() + timeout
        attempt = 0
        while True:
            try:
                return await method(request, timeout=min(timeout, attempt_timeout))
            except grpc.aio.AioRpcError as error:
                failure = from_rpc_error(error)
            if not _may_retry(failure):
                raise failure
            attempt += 1
            wait = self.backoff.wait_before(attempt)
            timeout = deadline - asyncio.get_running_loop().time() - wait
            if timeout <= 0:
                raise failure
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Close it for good. Calls in flight are cancelled: await or cancel their tasks first."""
        self._is_closed = True
        mine = self._channels.pop(asyncio.get_running_loop(), None)
        # Those of other loops close as their last call ends.
        self._channels.clear()
        if mine is not None:
            await mine.close()

    def _here(self) -> _Channels:
        loop = asyncio.get_running_loop()
        channels = self._channels.get(loop)
        if channels is None:
            channels = self._open(loop)
        return channels

    def _open(self, loop: asyncio.AbstractEventLoop) -> _Channels:
        if self._is_closed:
            raise ConnectionClosedError(self.address)
        for other in list(self._channels):
            if other.is_closed():
                # Another thread's loop may look as well.
                self._channels.pop(other, None)
        channels = _Channels(lambda: _open_channel(self.address, self._tls))
        self._channels[loop] = channels
        return channels


def _may_retry(failure: RpcError) -> bool:
    # NotReady has waited on the server already: the caller decides whether to wait as long again.
    if isinstance(failure, NotReadyError):
        return False
    return isinstance(failure, UnavailableError | DeadlineExceededError)


def _open_channel(address: str, tls: TlsConfig | None) -> grpc.aio.Channel:
    options: list[tuple[str, Any]] = list(_CHANNEL_OPTIONS)
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


def _ssl_context(tls: TlsConfig) -> ssl.SSLContext:
    """What finds out why the server's side of the encryption does not fit.

    Raises:
        ssl.SSLError: The roots are no certificates.
        UnicodeDecodeError: They are not even text.
    """
    roots = tls.server_root_ca_cert
    return ssl.create_default_context(cadata=None if roots is None else roots.decode())
