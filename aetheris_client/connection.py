"""A connection to a cluster: which channel a call is made on, and how it is tried again.

Every call has a deadline. Until then UNAVAILABLE is tried again, with exponential backoff and
jitter; a long poll also where a single attempt ran out of time. Nothing else is. That is safe for
writes too: they carry a request id, so the server does each once.
"""

import asyncio
import math
import random
import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import grpc

from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris_client.channels import ChannelPool, Stubs, TlsConfig, open_channel
from aetheris_client.errors import (
    ConnectionClosedError,
    DeadlineExceededError,
    NotReadyError,
    RpcError,
    UnavailableError,
)
from aetheris_client.reachability import why_unreachable
from aetheris_client.rpc_errors import from_rpc_error

Request = TypeVar("Request")
Response = TypeVar("Response")


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


class _Channels:
    """Those of one event loop. Workers, whose polls wait, have channels of their own."""

    def __init__(self, open_one: Callable[[], grpc.aio.Channel]) -> None:
        loop = asyncio.get_running_loop()
        self.of_calls = ChannelPool(loop, open_one)
        self.of_workers = ChannelPool(loop, open_one)

    async def close(self) -> None:
        await self.of_calls.close()
        await self.of_workers.close()


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

    @contextmanager
    def worker_service(self, call_count: int) -> Generator[WorkerServiceStub]:
        """The stub of a worker that makes up to so many calls at a time, until the block is left.

        There is room for them, however many workers the connection has.
        """
        pool = self._here().of_workers
        lent = pool.take(call_count)
        try:
            yield lent.stubs.worker_service
        finally:
            pool.give_back(lent, call_count)

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
        pool = self._here().of_calls
        lent = pool.take()
        try:
            await asyncio.wait_for(lent.channel.channel_ready(), timeout)
        except TimeoutError:
            why = await self._why_unreachable()
            raise UnavailableError(
                f"no server answers at {self.address} within {timeout:g} s: {why}"
            ) from None
        finally:
            pool.give_back(lent)

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
        method_of: Callable[[Stubs], grpc.aio.UnaryUnaryMultiCallable[Request, Response]],
        request: Request,
        timeout: float,
        attempt_timeout: float = math.inf,
    ) -> Response:
        """Send a request and await its response, trying again while no server is available.

        Args:
            method_of: Picks the method from the stubs of the channel that the call is made on.
            request: Sent again unchanged; a write has its request id.
            timeout: Seconds for all attempts together.
            attempt_timeout: Seconds for one attempt, after which it is made again: for long polls,
                which a server answers sooner than that.

        Raises:
            RpcError: A typed leaf where the server attached a detail. When the time is up, what
                the last attempt met: UnavailableError or DeadlineExceededError.
        """
        pool = self._here().of_calls
        lent = pool.take()
        try:
            return await self._try(method_of(lent.stubs), request, timeout, attempt_timeout)
        finally:
            pool.give_back(lent)

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
        channels = _Channels(lambda: open_channel(self.address, self._tls))
        self._channels[loop] = channels
        return channels


def _may_retry(failure: RpcError) -> bool:
    # NotReady has waited on the server already: the caller decides whether to wait as long again.
    if isinstance(failure, NotReadyError):
        return False
    return isinstance(failure, UnavailableError | DeadlineExceededError)


def _ssl_context(tls: TlsConfig) -> ssl.SSLContext:
    """What finds out why the server's side of the encryption does not fit.

    Raises:
        ssl.SSLError: The roots are no certificates.
        UnicodeDecodeError: They are not even text.
    """
    roots = tls.server_root_ca_cert
    return ssl.create_default_context(cadata=None if roots is None else roots.decode())
