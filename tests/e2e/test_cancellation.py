"""Cancellation as the code of a workflow meets it: the exact events, on a real server."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1.history_pb2 import EventType
from aetheris_client import Client, WorkflowHandle
from aetheris_client.errors import CancelledError, WorkflowFailedError
from aetheris_worker import Worker, activity, workflow
from tests.support.processes import ServerProcess
from tests.support.wait import wait_until

LONG = timedelta(minutes=5)
_TASK = {"WORKFLOW_TASK_SCHEDULED", "WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_COMPLETED"}

has_begun = asyncio.Event()
may_end = asyncio.Event()


@activity.defn
async def obey() -> str:
    has_begun.set()
    await asyncio.Event().wait()
    return "never"


@activity.defn
async def ignore() -> str:
    has_begun.set()
    await may_end.wait()
    return "ended"


@activity.defn
async def clean_up() -> str:
    return "clean"


async def _run_activity(function: Any, how: str) -> str:
    return await workflow.execute_activity(
        function,
        cancellation_type=workflow.ActivityCancellationType[how],
        start_to_close_timeout=LONG,
    )


@workflow.defn
class Cancels:
    """Waits for an activity; whatever becomes of it, it cleans up."""

    @workflow.run
    async def run(self, how: str) -> str:
        try:
            return await _run_activity(obey, how)
        finally:
            await workflow.execute_activity(clean_up, start_to_close_timeout=LONG)


@workflow.defn
class Shields:
    """Its activity is not asked to cancel: it waits for it once it was told."""

    @workflow.run
    async def run(self) -> str:
        shielded = asyncio.ensure_future(_run_activity(ignore, "TRY_CANCEL"))
        try:
            return await asyncio.shield(shielded)
        except asyncio.CancelledError:
            return await shielded


@workflow.defn
class Nests:
    """An inner scope runs into its time; the outer one goes on."""

    @workflow.run
    async def run(self) -> str:
        async with asyncio.timeout(300):
            try:
                async with asyncio.timeout(0.3):
                    await _run_activity(obey, "TRY_CANCEL")
            except TimeoutError:
                await workflow.execute_activity(clean_up, start_to_close_timeout=LONG)
            return "outer"


@workflow.defn
class Timers:
    """Cancels a timer, and waits for another."""

    @workflow.run
    async def run(self) -> str:
        long = asyncio.ensure_future(asyncio.sleep(300))
        await asyncio.sleep(0.1)
        long.cancel()
        await asyncio.sleep(0.1)
        return "done"


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    has_begun.clear()
    may_end.clear()
    async with await Client.connect(shared_server.address) as connected:
        yield connected


@pytest.fixture
async def queue(client: Client) -> AsyncGenerator[str]:
    name = f"queue-{secrets.token_hex(4)}"
    async with Worker(
        client,
        task_queue=name,
        workflows=[Cancels, Shields, Nests, Timers],
        activities=[obey, ignore, clean_up],
    ):
        yield name


async def _events(handle: WorkflowHandle[Any]) -> list[str]:
    """The types of its events, without those of workflow tasks."""
    names = [
        EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        async for event in handle.history()
    ]
    return [name for name in names if name not in _TASK]


async def _cancel_while_it_runs(handle: WorkflowHandle[Any]) -> None:
    await wait_until(has_begun.is_set, 20, "the activity to begin")
    await handle.cancel(reason="enough")


async def _assert_cancelled(handle: WorkflowHandle[Any]) -> None:
    with pytest.raises(WorkflowFailedError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, CancelledError)


def new_id() -> str:
    return f"w-{secrets.token_hex(6)}"


@pytest.mark.parametrize(
    "how,between",
    [
        ("TRY_CANCEL", ["ACTIVITY_TASK_CANCEL_REQUESTED", "ACTIVITY_TASK_SCHEDULED"]),
        (
            "WAIT_CANCELLATION_COMPLETED",
            [
                "ACTIVITY_TASK_CANCEL_REQUESTED",
                "ACTIVITY_TASK_STARTED",
                "ACTIVITY_TASK_CANCELLED",
                "ACTIVITY_TASK_SCHEDULED",
            ],
        ),
        ("ABANDON", ["ACTIVITY_TASK_SCHEDULED"]),
    ],
)
async def test_cancelled_run_does_with_its_activity_what_the_type_says_and_cleans_up(
    client: Client, queue: str, how: str, between: list[str]
) -> None:
    handle = await client.start_workflow(Cancels.run, how, id=new_id(), task_queue=queue)
    await _cancel_while_it_runs(handle)
    await _assert_cancelled(handle)
    events = await _events(handle)
    requested = events.index("WORKFLOW_EXECUTION_CANCEL_REQUESTED")
    assert events[:requested] == ["WORKFLOW_EXECUTION_STARTED", "ACTIVITY_TASK_SCHEDULED"]
    assert events[requested + 1 :][: len(between)] == between
    assert events[-1] == "WORKFLOW_EXECUTION_CANCELLED"
    # The activity in `finally` has run to its end.
    assert events.count("ACTIVITY_TASK_COMPLETED") == 1


async def test_shielded_activity_is_not_asked_to_cancel_and_its_result_counts(
    client: Client, queue: str
) -> None:
    handle = await client.start_workflow(Shields.run, id=new_id(), task_queue=queue)
    await _cancel_while_it_runs(handle)
    may_end.set()
    assert await handle.result() == "ended"
    assert await _events(handle) == [
        "WORKFLOW_EXECUTION_STARTED",
        "ACTIVITY_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_CANCEL_REQUESTED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]


async def test_inner_scope_that_runs_into_its_time_leaves_the_outer_one_alone(
    client: Client, queue: str
) -> None:
    handle = await client.start_workflow(Nests.run, id=new_id(), task_queue=queue)
    assert await handle.result() == "outer"
    events = await _events(handle)
    assert events[:4] == [
        "WORKFLOW_EXECUTION_STARTED",
        "TIMER_STARTED",
        "TIMER_STARTED",
        "ACTIVITY_TASK_SCHEDULED",
    ]
    fired = events.index("TIMER_FIRED")
    assert events[fired + 1 : fired + 3] == [
        "ACTIVITY_TASK_CANCEL_REQUESTED",
        "ACTIVITY_TASK_SCHEDULED",
    ]
    assert events[-2:] == ["TIMER_CANCELLED", "WORKFLOW_EXECUTION_COMPLETED"]


async def test_timer_that_the_code_cancels_never_fires(client: Client, queue: str) -> None:
    handle = await client.start_workflow(Timers.run, id=new_id(), task_queue=queue)
    assert await handle.result() == "done"
    assert await _events(handle) == [
        "WORKFLOW_EXECUTION_STARTED",
        "TIMER_STARTED",
        "TIMER_STARTED",
        "TIMER_FIRED",
        "TIMER_STARTED",
        "TIMER_CANCELLED",
        "TIMER_FIRED",
        "WORKFLOW_EXECUTION_COMPLETED",
    ]
