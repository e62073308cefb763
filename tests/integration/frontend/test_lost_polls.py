"""Answers to polls whose connection breaks after the poll was answered, on their way out."""

import asyncio

import grpc

from aetheris.api.v1.worker_service_pb2 import PollActivityTasksRequest
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from tests.support.cutting_proxy import grpc_proxy
from tests.support.frontend import running_frontend
from tests.support.peers import NAMESPACE_ID
from tests.support.wait import wait_until

# More than lies between two sockets.
BIG = bytes(30 << 20)


async def test_tasks_of_an_answer_that_cannot_be_sent_are_given_back() -> None:
    async with (
        running_frontend() as frontend,
        grpc_proxy(frontend.server.address) as (proxy, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        frontend.matching.input = BIG
        poll = asyncio.create_task(start_poll(channel))
        await wait_until(lambda: frontend.matching.waiting == 1)
        proxy.holds_replies = True
        frontend.matching.tasks_ready.set()
        await wait_until(lambda: frontend.matching.waiting == 0)
        assert frontend.history.released == []
        proxy.cut()
        await wait_until(lambda: frontend.history.released == [NAMESPACE_ID.encode()])
        await asyncio.wait([poll])


async def test_tasks_of_an_answer_that_comes_are_not_given_back() -> None:
    async with (
        running_frontend() as frontend,
        grpc_proxy(frontend.server.address) as (proxy, address),
        grpc.aio.insecure_channel(address) as channel,
    ):
        frontend.matching.tasks_ready.set()
        await start_poll(channel)
        proxy.cut()
        await frontend.server.stop(1.0)
        assert frontend.history.released == []


async def start_poll(channel: grpc.aio.Channel) -> None:
    request = PollActivityTasksRequest(namespace="default", task_queue="q")
    await WorkerServiceStub(channel).PollActivityTasks(request, timeout=30)
