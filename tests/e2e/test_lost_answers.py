"""The server's responses to a worker's answers are lost behind it: what they took along goes on."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1.history_pb2 import (
    EVENT_TYPE_ACTIVITY_TASK_COMPLETED,
    EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
)
from aetheris_client import Client
from aetheris_worker import Worker, activity, workflow
from tests.support.cutting_proxy import CuttingProxy, grpc_proxy
from tests.support.processes import ServerProcess
from tests.support.wait import wait_until

LONG = timedelta(minutes=5)
# A worker repeats at once, and no task of these runs times out so soon.
SOON = 5.0


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as connected:
        yield connected


class Moment:
    """When the next responses are to be lost: code of the worker calls it once."""

    def __init__(self) -> None:
        self.act: Callable[[], None] | None = None

    def come(self) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


decides, acts = Moment(), Moment()
calls: list[str] = []


@activity.defn
async def note(name: str) -> str:
    calls.append(name)
    acts.come()
    return name


@workflow.defn
class Two:
    @workflow.run
    async def run(self, name: str) -> list[str]:
        decides.come()
        first = await workflow.execute_activity(note, f"{name}-1", start_to_close_timeout=LONG)
        second = await workflow.execute_activity(note, f"{name}-2", start_to_close_timeout=LONG)
        return [first, second]


@pytest.mark.parametrize(
    "moment, event_type",
    [
        (decides, EVENT_TYPE_ACTIVITY_TASK_SCHEDULED),
        (acts, EVENT_TYPE_ACTIVITY_TASK_COMPLETED),
    ],
    ids=["decision", "result"],
)
async def test_tasks_taken_along_with_a_response_that_is_lost_go_on_at_once(
    shared_server: ServerProcess, client: Client, moment: Moment, event_type: Any
) -> None:
    name = f"w-{secrets.token_hex(4)}"
    async with (
        grpc_proxy(shared_server.address) as (proxy, address),
        await Client.connect(address) as through_proxy,
        Worker(through_proxy, task_queue=name, workflows=[Two], activities=[note]),
    ):
        moment.act = lambda: lose_responses(proxy)
        handle = await client.start_workflow(
            Two.run, name, id=name, task_queue=name, task_timeout=timedelta(seconds=60)
        )

        async def is_on_disk() -> bool:
            return event_type in [event.event_type async for event in handle.history()]

        await wait_until(is_on_disk)
        proxy.holds_replies = False
        proxy.cut()
        async with asyncio.timeout(SOON):
            assert await handle.result() == [f"{name}-1", f"{name}-2"]
    assert [call for call in calls if call.startswith(name)] == [f"{name}-1", f"{name}-2"]


@workflow.defn
class Once:
    @workflow.run
    async def run(self, name: str) -> str:
        decides.come()
        return await workflow.execute_activity(
            note, name, start_to_close_timeout=LONG, at_most_once=True
        )


async def test_at_most_once_task_in_an_answer_that_is_lost_runs_once(
    shared_server: ServerProcess, client: Client
) -> None:
    name = f"w-{secrets.token_hex(4)}"
    async with (
        grpc_proxy(shared_server.address) as (proxy, address),
        await Client.connect(address) as through_proxy,
        Worker(through_proxy, task_queue=name, workflows=[Once], activities=[note]),
    ):
        decides.act = lambda: lose_responses(proxy)
        handle = await client.start_workflow(Once.run, name, id=name, task_queue=name)

        async def is_given_out() -> bool:
            pending = (await handle.describe()).pending_activities
            return any(item.last_started_time is not None for item in pending)

        await wait_until(is_given_out)
        assert name not in calls
        proxy.holds_replies = False
        proxy.cut()
        async with asyncio.timeout(SOON):
            assert await handle.result() == name
    assert calls.count(name) == 1


def lose_responses(proxy: CuttingProxy) -> None:
    proxy.holds_replies = True
