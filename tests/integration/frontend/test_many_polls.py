"""Thousands of long polls over few connections: they wait, or are refused with what helps."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack

import grpc

from aetheris.api.v1.worker_service_pb2 import PollActivityTasksRequest
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.support.frontend import running_frontend
from tests.support.wait import wait_until


async def test_5000_polls_at_once_over_20_connections_all_wait() -> None:
    async with running_frontend() as frontend, AsyncExitStack() as stack:
        stubs = [
            WorkerServiceStub(await stack.enter_async_context(own_channel(frontend.server.address)))
            for _ in range(20)
        ]
        polls = [asyncio.create_task(poll(stubs[number % 20])) for number in range(5_000)]
        await wait_until(lambda: frontend.matching.waiting == 5_000 or any_done(polls), 60)
        frontend.matching.tasks_ready.set()
        outcomes = Counter(await asyncio.gather(*polls))
        assert outcomes == {(grpc.StatusCode.OK, ""): 5_000}


async def test_calls_beyond_the_bound_are_refused_with_what_helps() -> None:
    async with running_frontend(max_calls=10) as frontend:
        polls = [asyncio.create_task(poll(frontend.workers)) for _ in range(10)]
        await wait_until(lambda: frontend.matching.waiting == 10)
        code, message = await poll(frontend.workers)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_tasks" in message
        frontend.matching.tasks_ready.set()
        assert {code for code, _ in await asyncio.gather(*polls)} == {grpc.StatusCode.OK}


def own_channel(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])


def any_done(polls: Sequence[asyncio.Task[tuple[grpc.StatusCode, str]]]) -> bool:
    return any(poll.done() for poll in polls)


async def poll(stub: WorkerServiceStub) -> tuple[grpc.StatusCode, str]:
    """What became of a poll: its code, and what it says if it failed."""
    request = PollActivityTasksRequest(namespace="default", task_queue="q")
    try:
        await stub.PollActivityTasks(request, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    return grpc.StatusCode.OK, ""
