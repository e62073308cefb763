"""The RPC table against the protos, and against what serves it."""

from types import ModuleType
from typing import Any, cast

import pytest

from aetheris.api.v1 import operator_service_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.config import MatchingSettings, RedisSettings
from aetheris_server.history.service import serve_history
from aetheris_server.matching import MatchingService
from aetheris_server.rpc.table import (
    FRONTEND_METHODS,
    HISTORY_METHODS,
    MATCHING_METHODS,
    FrontendMethod,
    HistoryMethod,
    MatchingMethod,
)
from tests.support.engines import build_runs

ENVELOPE = history_service_pb2.CallRequest.DESCRIPTOR.oneofs_by_name["request"].fields
ANSWERS = history_service_pb2.CallResponse.DESCRIPTOR.oneofs_by_name["response"].fields


def _methods(module: ModuleType) -> dict[str, Any]:
    """The RPCs of a proto file, by the full name of their request."""
    return {
        method.input_type.full_name: method
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }


PUBLIC = {
    **_methods(workflow_service_pb2),
    **_methods(worker_service_pb2),
    **_methods(operator_service_pb2),
}


def test_history_has_a_row_for_each_request_of_the_envelope() -> None:
    assert list(HISTORY_METHODS) == [field.name for field in ENVELOPE]
    assert list(HISTORY_METHODS) == [field.name for field in ANSWERS]


@pytest.mark.parametrize("method", HISTORY_METHODS.values(), ids=HISTORY_METHODS)
def test_row_of_history_has_the_types_of_the_public_method(
    method: HistoryMethod[Any, Any, Any],
) -> None:
    public = PUBLIC[method.request.DESCRIPTOR.full_name]
    assert public.output_type is method.response.DESCRIPTOR
    answer = next(field for field in ANSWERS if field.name == method.name)
    assert answer.message_type is method.response.DESCRIPTOR
    assert method.takes_token == ("task_token" in method.request.DESCRIPTOR.fields_by_name)


def test_matching_has_a_row_for_each_rpc_but_the_one_that_comes_apart() -> None:
    service = matching_service_pb2.DESCRIPTOR.services_by_name["MatchingService"]
    assert {"AddTasks", *MATCHING_METHODS} == {method.name for method in service.methods}


@pytest.mark.parametrize("method", MATCHING_METHODS.values(), ids=MATCHING_METHODS)
def test_row_of_matching_has_the_types_of_its_rpc(method: MatchingMethod[Any, Any]) -> None:
    rpc = _methods(matching_service_pb2)[method.request.DESCRIPTOR.full_name]
    assert (rpc.name, rpc.output_type) == (method.name, method.response.DESCRIPTOR)


def test_every_row_is_served() -> None:
    nothing = cast("Any", None)
    matching = MatchingService(
        MatchingSettings(),
        RedisSettings(url="redis://x"),
        nothing,
        SystemClock(),
        nothing,
        DefaultBuilds(nothing),
    )
    assert set(serve_history(build_runs(SystemClock())).handlers) == set(HISTORY_METHODS.values())
    assert set(matching.serve().handlers) == set(MATCHING_METHODS.values())


def _public_requests() -> list[str]:
    """Of all rows: a row of matching carries its public request, if it has one, in a field."""
    rows = [*HISTORY_METHODS.values(), *FRONTEND_METHODS]
    carried = [
        method.request.DESCRIPTOR.fields_by_name["request"].message_type.full_name
        for method in MATCHING_METHODS.values()
        if "request" in method.request.DESCRIPTOR.fields_by_name
    ]
    return [*(row.request.DESCRIPTOR.full_name for row in rows), *carried]


def test_every_public_method_has_one_row() -> None:
    assert sorted(_public_requests()) == sorted(PUBLIC)


@pytest.mark.parametrize("method", FRONTEND_METHODS, ids=lambda method: method.request.__name__)
def test_row_of_the_frontend_has_the_types_of_the_public_method(
    method: FrontendMethod[Any, Any],
) -> None:
    assert PUBLIC[method.request.DESCRIPTOR.full_name].output_type is method.response.DESCRIPTOR
