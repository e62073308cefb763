"""Many calls that wait, over one client's connection: other calls, and workers, go on."""

import asyncio
from contextlib import ExitStack
from typing import Any

import pytest

from aetheris.api.v1 import workflow_service_pb2
from aetheris_client.connection import Connection
from aetheris_server.config import GrpcSettings
from aetheris_worker.session import MAX_CALLS_IN_FLIGHT
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
            await connection.call(lambda stubs: stubs.workflow_service.PollWorkflowResult, poll, 60)

        frontend.history.answers["poll_workflow_result"] = wait
        frontend.matching.tasks_ready.set()
        poll = good_request("PollWorkflowResult")
        poll.wait_timeout.seconds = 60
        waits = [asyncio.create_task(poll_result()) for _ in range(count)]
        await wait_until(lambda: len(frontend.history.calls) == count, 30, "the waits")
        describe = good_request("DescribeWorkflow")
        await connection.call(lambda stubs: stubs.workflow_service.DescribeWorkflow, describe, 10)
        with connection.worker_service(1) as worker:
            tasks = await worker.PollWorkflowTasks(good_request("PollWorkflowTasks"), timeout=10)
        assert len(tasks.tasks) == 1
        closed.set()
        await asyncio.gather(*waits)


async def test_workers_that_share_a_connection_hold_up_none_of_them() -> None:
    bound = GrpcSettings().max_streams
    assert bound is not None
    count = bound // 2 + 10
    async with (
        running_frontend(max_streams=bound) as frontend,
        Connection(frontend.server.address) as connection,
    ):
        with ExitStack() as stack:
            stubs = [
                stack.enter_context(connection.worker_service(MAX_CALLS_IN_FLIGHT))
                for _ in range(count)
            ]
            polls = [
                asyncio.create_task(poll)
                for stub in stubs
                for poll in (
                    _poll(stub.PollWorkflowTasks, "PollWorkflowTasks"),
                    _poll(stub.PollActivityTasks, "PollActivityTasks"),
                )
            ]
            await wait_until(lambda: frontend.matching.waiting == 2 * count, 60, "the polls")
            response = await stubs[-1].RespondTasks(good_request("RespondTasks"), timeout=10)
            assert response.results
            frontend.matching.tasks_ready.set()
            await asyncio.gather(*polls)


async def _poll(method: Any, name: str) -> None:
    await method(good_request(name), timeout=60)
