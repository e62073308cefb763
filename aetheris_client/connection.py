"""A connection to a cluster: the channels, the stubs, and how a call is tried again.

Every call has a deadline. Until then UNAVAILABLE is tried again, with exponential backoff and
jitter; a long poll also where a single attempt ran out of time. Nothing else is. That is safe for
writes too: they carry a request id, so the server does each once.
"""

import asyncio
import math
import random
import ssl
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


@dataclass(frozen=True, slots=True)
class _Channel:
    """A channel of one event loop, and the stubs that use it."""

    channel: grpc.aio.Channel
    workflow_service: WorkflowServiceStub
    worker_service: WorkerServiceStub
    operator_service: OperatorServiceStub


class Connection:
    """A connection to a cluster, shared by every client and worker that is given it.

    gRPC binds a channel to the event loop that opens it, so each loop that uses the connection gets
    a channel of its own, when it first does: one client serves a second `asyncio.run` as well.
    """

    def __init__(
        self, address: str, tls: TlsConfig | bool = False, backoff: Backoff | None = None
    ) -> None:
        self.address = address
        self.backoff = backoff or Backoff()
        self._tls = (TlsConfig() if tls else None) if isinstance(tls, bool) else tls
        self._channels: dict[asyncio.AbstractEventLoop, _Channel] = {}
        self._is_closed = False

    @property
    def workflow_service(self) -> WorkflowServiceStub:
        """For the running event loop alone, as the other two are."""
        return self._here().workflow_service

    @property
    def worker_service(self) -> WorkerServiceStub:
        """For workers' polls and answers."""
        return self._here().worker_service

    @property
    def operator_service(self) -> OperatorServiceStub:
        """For operators."""
        return self._here().operator_service

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
            await asyncio.wait_for(self._here().channel.channel_ready(), timeout)
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
            await mine.channel.close()

    def _here(self) -> _Channel:
        loop = asyncio.get_running_loop()
        open_channel = self._channels.get(loop)
        if open_channel is None:
            open_channel = self._open(loop)
        return open_channel

    def _open(self, loop: asyncio.AbstractEventLoop) -> _Channel:
        if self._is_closed:
            raise ConnectionClosedError(self.address)
        for other in list(self._channels):
            if other.is_closed():
                # Another thread's loop may look as well.
                self._channels.pop(other, None)
        channel = _open_channel(self.address, self._tls)
        self._channels[loop] = _Channel(
            channel,
            WorkflowServiceStub(channel),
            WorkerServiceStub(channel),
            OperatorServiceStub(channel),
        )
        return self._channels[loop]


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
