"""Many large requests at once: what is too much is refused at once, and small ones go on."""

import asyncio
from collections import Counter

import grpc

from aetheris.api.v1 import common_pb2, task_queue_pb2, workflow_service_pb2
from tests.support.frontend import RunningFrontend, running_frontend
from tests.support.wait import wait_until

_MIB = 1024 * 1024
_OK = grpc.StatusCode.OK


async def test_large_requests_beyond_the_bound_are_refused_until_others_are_done() -> None:
    async with running_frontend() as frontend:
        disk = asyncio.Event()

        async def write(namespace_id: str, request: object) -> object:
            del namespace_id, request
            await disk.wait()
            return workflow_service_pb2.StartWorkflowResponse()

        frontend.history.answers["start_workflow"] = write
        large = [asyncio.create_task(start(frontend, 2 * _MIB - 1000)) for _ in range(100)]
        await wait_until(lambda: sum(each.done() for each in large) > 60, 30, "the refusals")
        small = [asyncio.create_task(start(frontend, 100)) for _ in range(100)]
        await wait_until(lambda: len(frontend.history.calls) > 130, 10, "the small ones")
        disk.set()
        assert Counter(await asyncio.gather(*small)) == {_OK: 100}
        outcomes = Counter(await asyncio.gather(*large))
        assert outcomes.keys() == {_OK, grpc.StatusCode.UNAVAILABLE}
        assert 32 <= outcomes[_OK] <= 34
        assert await start(frontend, 2 * _MIB - 1000) is _OK


async def start(frontend: RunningFrontend, size: int) -> grpc.StatusCode:
    """What became of a start whose input has so many bytes."""
    request = workflow_service_pb2.StartWorkflowRequest(
        namespace="default",
        workflow_id="w",
        request_id="r",
        workflow_type=common_pb2.WorkflowType(name="Flow"),
        task_queue=task_queue_pb2.TaskQueue(name="q"),
        input=common_pb2.Payloads(payloads=[common_pb2.Payload(data=bytes(size))]),
    )
    try:
        await frontend.workflows.StartWorkflow(request, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return _OK
