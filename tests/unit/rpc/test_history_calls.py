import inspect
from typing import Any

import pytest
from google.protobuf.message import Message

from aetheris.server.v1 import history_service_pb2
from aetheris_server.rpc.history_calls import HistoryCalls
from aetheris_server.rpc.peers import HistoryPeer

REQUESTS = history_service_pb2.CallRequest.DESCRIPTOR.oneofs_by_name["request"].fields
RESPONSES = history_service_pb2.CallResponse.DESCRIPTOR.oneofs_by_name["response"].fields


class _Noting(HistoryCalls):
    def __init__(self) -> None:
        self.noted: tuple[str, type[Message]] | None = None

    async def _call(
        self, method: str, namespace_id: str, request: Message, response: type[Any]
    ) -> Any:
        self.noted = (method, response)
        return response()


def test_every_request_has_a_response_of_the_same_name() -> None:
    assert [field.name for field in REQUESTS] == [field.name for field in RESPONSES]


def test_protocol_has_exactly_the_methods_of_the_envelope() -> None:
    methods = {
        name for name, _ in inspect.getmembers(HistoryPeer, inspect.isfunction) if name[0] != "_"
    }
    assert methods == {field.name for field in REQUESTS} | {"start_tasks", "release_tasks"}


@pytest.mark.parametrize("name", [field.name for field in RESPONSES])
async def test_call_passes_its_own_name_and_response_type(name: str) -> None:
    calls = _Noting()
    await getattr(calls, name)("namespace", None)
    assert calls.noted is not None
    method, response = calls.noted
    assert method == name
    assert response.DESCRIPTOR.full_name == next(
        field.message_type.full_name for field in RESPONSES if field.name == name
    )
