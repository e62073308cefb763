"""A gRPC server that answers as the test says: for tests of what clients do with answers."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.status_pb2 import Status  # pyright: ignore[reportMissingTypeStubs] - its own types
from grpc_status import rpc_status

from aetheris.api.v1 import operator_service_pb2, worker_service_pb2, workflow_service_pb2

M = TypeVar("M", bound=Message)

SERVICES: Sequence[ServiceDescriptor] = (
    workflow_service_pb2.DESCRIPTOR.services_by_name["WorkflowService"],
    operator_service_pb2.DESCRIPTOR.services_by_name["OperatorService"],
    worker_service_pb2.DESCRIPTOR.services_by_name["WorkerService"],
)


@dataclass(frozen=True)
class Refusal:
    """Makes a call fail with a status, and a typed detail."""

    code: grpc.StatusCode
    message: str = "refused"
    detail: Message | None = None


Answer = Message | Refusal | Callable[[Any], Awaitable[Message]]


class CannedServer:
    """Answers each method with its next scripted answer; with the last one for ever."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[Message] = []
        self._answers: dict[str, list[Answer]] = {}
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def on(self, method: str, *answers: Answer) -> None:
        """Say how a method, for example `StartWorkflow`, is answered from now on."""
        self._answers[method] = list(answers)

    def requests_of(self, kind: type[M]) -> list[M]:
        return [request for request in self.requests if isinstance(request, kind)]

    async def start(self) -> None:
        """Start, on the same port as before where it was stopped."""
        self._server = grpc.aio.server()
        for service in SERVICES:
            self._server.add_generic_rpc_handlers((self._handlers(service),))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Stop as a killed server does: calls in flight are cut."""
        if self._server is not None:
            await self._server.stop(grace=None)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _handlers(self, service: ServiceDescriptor) -> grpc.GenericRpcHandler:
        methods: list[MethodDescriptor] = list(service.methods)
        return grpc.method_handlers_generic_handler(
            service.full_name, {method.name: self._handler(method) for method in methods}
        )

    def _handler(self, method: MethodDescriptor) -> "grpc.RpcMethodHandler[Any, Any]":
        async def answer(request: Message, context: Any) -> Message:
            self.requests.append(request)
            answers = self._answers.get(method.name)
            assert answers, f"the test says not how to answer {method.name}"
            given = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(given, Refusal):
                return await context.abort(given.code, given.message, trailers(given))
            return given if isinstance(given, Message) else await given(request)

        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=GetMessageClass(method.input_type).FromString,
            response_serializer=lambda response: response.SerializeToString(),
        )


@contextmanager
def served_on_a_thread() -> Generator[CannedServer]:
    """A server with an event loop of its own: for programs that bring theirs."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = CannedServer()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
        yield server
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


def trailers(refusal: Refusal) -> tuple[tuple[str, bytes], ...]:
    """A refusal's detail as servers send it."""
    if refusal.detail is None:
        return ()
    status = Status(code=refusal.code.value[0], message=refusal.message)
    status.details.add().Pack(refusal.detail)
    return tuple(cast("Any", rpc_status.to_status(status)).trailing_metadata)
