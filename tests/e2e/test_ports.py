"""What a server answers at each of its ports."""

from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from aetheris.api.v1 import operator_service_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from tests.support.processes import ServerProcess

PUBLIC = (workflow_service_pb2, worker_service_pb2, operator_service_pb2)
INTERNAL = (history_service_pb2, matching_service_pb2)


def _services(modules: tuple[Any, ...]) -> list[ServiceDescriptor]:
    return [each for module in modules for each in module.DESCRIPTOR.services_by_name.values()]


async def _codes(address: str, modules: tuple[Any, ...]) -> set[grpc.StatusCode]:
    """What every method answers to a caller who shows nothing."""
    codes: set[grpc.StatusCode] = set()
    async with grpc.aio.insecure_channel(address) as channel:
        for service in _services(modules):
            for method in service.methods:
                call: Any = channel.unary_unary(f"/{service.full_name}/{method.name}")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(b"\xff", timeout=20)
                codes.add(caught.value.code())
    return codes


async def _listed(address: str) -> set[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        responses: AsyncGenerator[Any] = stub.ServerReflectionInfo(iter([ask]), timeout=20)
        return {
            service.name
            async for response in responses
            for service in response.list_services_response.service
        }


async def test_public_port_has_the_public_services_alone(shared_server: ServerProcess) -> None:
    assert await _listed(shared_server.address) == {
        *(service.full_name for service in _services(PUBLIC)),
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    codes = await _codes(shared_server.address, INTERNAL)
    assert codes == {grpc.StatusCode.UNIMPLEMENTED}


async def test_internal_port_has_no_public_service_and_nothing_for_strangers(
    shared_server: ServerProcess,
) -> None:
    address = shared_server.internal_address
    assert await _codes(address, INTERNAL) == {grpc.StatusCode.PERMISSION_DENIED}
    assert await _codes(address, (*PUBLIC, reflection_pb2)) == {grpc.StatusCode.UNIMPLEMENTED}
