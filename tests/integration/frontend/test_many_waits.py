"""A client that waits for many results: its other calls, and workers beside it, go on."""

import asyncio

import pytest

from aetheris.api.v1 import workflow_service_pb2
from aetheris_client.connection import Connection
from aetheris_server.config import GrpcSettings
from tests.support.frontend import running_frontend
from tests.support.requests import good_request
from tests.support.wait import wait_until


@pytest.mark.parametrize("count", [150, 300, 700])
async def test_results_that_a_client_waits_for_hold_up_nothing_else(count: int) -> None:
    bound = GrpcSettings().max_streams
    assert bound is not None
    async with (
        running_frontend(max_streams=bound) as frontend,
        Connection(frontend.server.address) as connection,
    ):
        closed = asyncio.Event()

        async def wait(namespace_id: str, request: object) -> object:
            del namespace_id, request
            await closed.wait()
            return workflow_service_pb2.PollWorkflowResultResponse()

        async def poll_result() -> None:
            method = connection.workflow_service.PollWorkflowResult
            await connection.call(method, poll, 60)

        frontend.history.answers["poll_workflow_result"] = wait
        frontend.matching.tasks_ready.set()
        poll = good_request("PollWorkflowResult")
        poll.wait_timeout.seconds = 60
        waits = [asyncio.create_task(poll_result()) for _ in range(count)]
        await wait_until(lambda: len(frontend.history.calls) == count, 30, "the waits")
        describe = good_request("DescribeWorkflow")
        await connection.call(connection.workflow_service.DescribeWorkflow, describe, 10)
        tasks = await connection.worker_service.PollWorkflowTasks(
            good_request("PollWorkflowTasks"), timeout=10
        )
        assert len(tasks.tasks) == 1
        closed.set()
        await asyncio.gather(*waits)
