"""What happens around every handler: parse, bound, call, map errors, serialize, count.

Handlers are wrapped once, when they are registered, because an interceptor is looked up and built
again for every call. A handler takes the parsed request and the call's context, returns a response,
and raises errors of `aetheris_server.errors`; it never aborts a call by itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc.aio import ServicerContext

from aetheris_server.errors import (
    ExhaustedError,
    InvalidArgumentError,
    NotAPeerError,
    UnavailableError,
)
from aetheris_server.rpc.bounds import check_bounds
from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.rpc.errors import RpcStatus, to_metadata, to_status
from aetheris_server.telemetry import counter, gauge, get_logger, histogram

__all__ = ["CallContext", "Calls", "Handler", "OnUndelivered", "RpcService", "handlers_of"]

CallContext = ServicerContext[Any, Any]

Handler = Callable[[Any, CallContext], Awaitable[Message]]
"""Answers the requests of one RPC."""

_CALLS = counter(
    "grpc_calls", "gRPC calls answered, by method and status code.", ["method", "code"]
)
_SECONDS = histogram("grpc_call_seconds", "Time to answer a gRPC call, polls included.", ["method"])
_IN_FLIGHT = gauge(
    "grpc_calls_in_flight", "gRPC calls being answered, by port: grpc or internal.", ["port"]
)

_log = get_logger(__name__)

# Bytes of requests being answered. All but a few of those wait for the disk, which would take
# longer than callers wait: nothing gets done any more where there is no bound.
_MAX_BYTES = 64 * 1024 * 1024
# These are let in all the same: they add little, and should not pay for others' large ones.
_SMALL_BYTES = 16 * 1024


OnUndelivered = Callable[[Any], Awaitable[None]]
"""Told of a response that did not reach the caller. Raises nothing, and does not take long."""


@dataclass(frozen=True, slots=True)
class RpcService:
    """A service and what answers its RPCs.

    Attributes:
        handlers: By RPC, all of them.
        on_undelivered: By RPC, for those whose responses must not get lost unnoticed.
        credentials: Of an internal service: what its callers must show. None is open to everybody.
    """

    descriptor: ServiceDescriptor
    handlers: Mapping[str, Handler]
    on_undelivered: Mapping[str, OnUndelivered] = field(default_factory=dict[str, OnUndelivered])
    credentials: PeerCredentials | None = None

    @property
    def name(self) -> str:
        """The full name, as health checks and reflection use it."""
        return self.descriptor.full_name


def handlers_of(descriptor: ServiceDescriptor, servicer: object) -> dict[str, Handler]:
    """The handlers of a servicer: an object that has a method for each RPC, of the same name."""
    return {method.name: getattr(servicer, method.name) for method in descriptor.methods}


class Calls:
    """The calls of one server: wraps their handlers and knows how many are in flight."""

    def __init__(self, port: str, max_count: int) -> None:
        """Args:
        port: The name of the server, for metrics.
        max_count: Calls in flight, polls included; one more that is not of a host of this
            cluster is refused. So is a large request where many large ones are in flight.
        """
        self._max_count = max_count
        self._count = 0
        self._bytes = 0
        self._idle = asyncio.Event()
        self._idle.set()
        _IN_FLIGHT.labels(port).set_function(lambda: self._count)

    def handlers_of(self, service: RpcService) -> grpc.GenericRpcHandler:
        """The service as grpc wants it."""
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            # On the wire a response is a stream of one, and only who writes to a stream learns that
            # it failed.
            method.name: (
                grpc.unary_stream_rpc_method_handler(self._wrap(service, method))
                if method.name in service.on_undelivered
                else grpc.unary_unary_rpc_method_handler(self._wrap(service, method))
            )
            for method in cast("list[MethodDescriptor]", service.descriptor.methods)
        }
        return grpc.method_handlers_generic_handler(service.name, handlers)

    async def wait_idle(self) -> None:
        """Wait until no handler runs."""
        await self._idle.wait()

    def _enter(self, size: int) -> None:
        self._count += 1
        self._bytes += size
        self._idle.clear()

    def _check_room(self, size: int) -> None:
        others = self._bytes - size
        if others > _MAX_BYTES and size > _SMALL_BYTES:
            # Not Exhausted: nothing that the caller could do better would help.
            raise UnavailableError(
                f"requests of {others} bytes are being answered; {_MAX_BYTES} is the limit"
            )
        if self._count > self._max_count:
            raise ExhaustedError(
                f"{self._max_count} calls are being answered; use fewer workers that poll for more"
                " tasks at once (max_tasks), or more servers"
            )

    def _leave(self, size: int) -> None:
        self._count -= 1
        self._bytes -= size
        if not self._count:
            self._idle.set()

    def _wrap(
        self, service: RpcService, method: MethodDescriptor
    ) -> Callable[[bytes, CallContext], Awaitable[bytes]]:
        name = f"{service.name}/{method.name}"
        handler = service.handlers[method.name]
        on_undelivered = service.on_undelivered.get(method.name)
        credentials = service.credentials
        parse = _parser_of(method, is_envelope=credentials is not None)
        succeeded = _CALLS.labels(name, grpc.StatusCode.OK.name)
        observe_seconds = _SECONDS.labels(name).observe

        async def answer(serialized: bytes, context: CallContext) -> bytes:
            start = time.perf_counter()
            size = len(serialized)
            self._enter(size)
            try:
                if credentials is not None:
                    # Hosts bound what they ask each other. Polls that fill this one must not keep
                    # them from telling it what would empty it.
                    _check_peer(credentials, context)
                else:
                    self._check_room(size)
                message = await handler(parse(serialized), context)
                response = message.SerializeToString()
                if on_undelivered is not None:
                    await _deliver(message, response, context, on_undelivered)
                succeeded.inc()
                return response
            except asyncio.CancelledError:
                # The caller went away or its deadline passed; nobody reads an answer.
                _CALLS.labels(name, grpc.StatusCode.CANCELLED.name).inc()
                raise
            except Exception as error:  # noqa: BLE001 - every fault becomes a status
                await _refuse(name, error, context)
            finally:
                self._leave(size)
                observe_seconds(time.perf_counter() - start)

        return answer


def _check_peer(credentials: PeerCredentials, context: CallContext) -> None:
    # None without metadata, whatever the stubs say.
    metadata = cast("Iterable[tuple[str, str | bytes]] | None", context.invocation_metadata())
    if not credentials.are_in(metadata or ()):
        raise NotAPeerError


async def _deliver(
    message: Message, response: bytes, context: CallContext, on_undelivered: OnUndelivered
) -> None:
    """Send the response; return when it is on its way, which is as much as can be known here."""
    try:
        await context.write(response)
    except BaseException as error:
        await on_undelivered(message)
        raise asyncio.CancelledError from error


def _parser_of(method: MethodDescriptor, *, is_envelope: bool) -> Callable[[bytes], Message]:
    """Makes a request of bytes, and refuses what no handler is to see."""
    # The stubs do not know all that a message can do.
    message: Any = GetMessageClass(method.input_type)

    def parse(serialized: bytes) -> Message:
        try:
            request = message.FromString(serialized)
        except DecodeError as error:
            raise InvalidArgumentError(
                "request", f"expected a serialized {method.input_type.full_name}: {error}"
            ) from None
        # What this version does not know it cannot judge, so it must not get into the log.
        request.DiscardUnknownFields()
        check_bounds(request, len(serialized), is_envelope=is_envelope)
        return request

    return parse


async def _refuse(name: str, error: Exception, context: CallContext) -> NoReturn:
    status = to_status(error)
    _CALLS.labels(name, status.code.name).inc()
    _log_refusal(name, error, status)
    await context.abort(status.code, status.message, to_metadata(status))


def _log_refusal(name: str, error: Exception, status: RpcStatus) -> None:
    log = _log.info if isinstance(error, UnavailableError) else _log.debug
    log("call failed", method=name, code=status.code.name, problem=status.message)
