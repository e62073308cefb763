"""No request, however odd, is answered with INTERNAL or UNKNOWN."""

import asyncio
from collections.abc import Callable, Generator
from types import SimpleNamespace
from typing import Any, NoReturn

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetheris.api.v1 import worker_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.config import Settings
from aetheris_server.frontend.services import build_frontend
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.handlers import Calls
from tests.support.fake_history import FakeHistory
from tests.support.messages import Messages
from tests.support.peers import NAMESPACE_ID, FakeCatalog, FakeMatching
from tests.support.requests import METHODS, good_request
from tests.support.secrets import TOKENS

Call = Callable[[MethodDescriptor, bytes], tuple[grpc.StatusCode, bytes]]

MESSAGES = Messages(NAMESPACE_ID, TOKENS)
FUZZ = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=20,
)


class _AbortedError(Exception):
    pass


class _Context:
    """As much of a call's context as a handler may use."""

    code = grpc.StatusCode.OK

    def time_remaining(self) -> None: ...

    async def write(self, message: bytes) -> None: ...

    async def abort(self, code: grpc.StatusCode, details: str, metadata: Any) -> NoReturn:
        del details, metadata
        self.code = code
        raise _AbortedError


@pytest.fixture(scope="module")
def call() -> Generator[Call]:
    """Calls a method of the frontend as gRPC would, with bytes; gives the code and bytes."""
    with asyncio.Runner() as runner:

        async def build() -> list[grpc.GenericRpcHandler]:
            calls = Calls("test", max_count=1_000)
            services = build_frontend(
                Settings(),
                FakeHistory(),
                FakeMatching(answers_at_once=True),
                FakeCatalog(),
                {},
                DrainGate(),
                SystemClock(),
                4,
                TOKENS,
            )
            return [calls.handlers_of(service) for service in services]

        handlers = runner.run(build())

        def call(method: MethodDescriptor, request: bytes) -> tuple[grpc.StatusCode, bytes]:
            path = f"/{method.containing_service.full_name}/{method.name}"
            details: Any = SimpleNamespace(method=path, invocation_metadata=())
            [handler] = filter(None, (handler.service(details) for handler in handlers))
            behavior: Any = handler.unary_unary or handler.unary_stream
            context = _Context()
            try:
                return context.code, runner.run(behavior(request, context))
            except _AbortedError:
                return context.code, b""

        yield call


GOOD = {method.name: good_request(method.name) for method in METHODS}


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_good_request_is_answered(call: Call, method: MethodDescriptor) -> None:
    code, _ = call(method, GOOD[method.name].SerializeToString())
    assert code is grpc.StatusCode.OK


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FUZZ
@given(st.data())
def test_random_request_is_never_a_fault_of_the_server(
    call: Call, method: MethodDescriptor, data: st.DataObject
) -> None:
    request = data.draw(MESSAGES.of(method.input_type))
    assert_no_fault(method, *call(method, request.SerializeToString()))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FUZZ
@given(st.data())
def test_good_request_with_a_field_changed_is_never_a_fault_of_the_server(
    call: Call, method: MethodDescriptor, data: st.DataObject
) -> None:
    good = GOOD[method.name]
    change = data.draw(MESSAGES.of(method.input_type))
    mixed = type(good)()
    mixed.CopyFrom(good)
    for field, _ in change.ListFields():
        if data.draw(st.booleans()):
            # Concatenation is merging, whatever the field's type.
            part = type(good)()
            part.CopyFrom(change)
            for other in change.DESCRIPTOR.fields:
                if other.name != field.name:
                    part.ClearField(other.name)
            mixed.ClearField(field.name)
            mixed.MergeFrom(part)
    assert_no_fault(method, *call(method, mixed.SerializeToString()))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FUZZ
@given(st.integers(0), st.integers(1, 255), st.integers(0, 20))
def test_damaged_request_is_never_a_fault_of_the_server(
    call: Call, method: MethodDescriptor, position: int, change: int, cut: int
) -> None:
    request = bytearray(GOOD[method.name].SerializeToString()) or bytearray(b"\0")
    request[position % len(request)] ^= change
    damaged = bytes(request[: len(request) - cut] if cut < 10 else request)
    assert_no_fault(method, *call(method, damaged))


def assert_no_fault(method: MethodDescriptor, code: grpc.StatusCode, response: bytes) -> None:
    faults = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
    assert code not in faults
    if method.name == "RespondTasks" and code is grpc.StatusCode.OK:
        results = worker_service_pb2.RespondTasksResponse.FromString(response).results
        assert not {result.error.code for result in results} & {code.value[0] for code in faults}
