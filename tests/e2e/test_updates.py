"""Updates through everything: client, server, worker; and the events that they leave."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1.history_pb2 import EventType
from aetheris_client import (
    Client,
    UpdateStage,
    WithStartWorkflowOperation,
    WorkflowHandle,
    WorkflowIdConflictPolicy,
)
from aetheris_client.errors import (
    ApplicationError,
    UpdateNotFoundError,
    WorkflowClosedError,
    WorkflowUpdateFailedError,
)
from aetheris_worker import Worker, activity, workflow
from tests.support.processes import ServerProcess

LONG = timedelta(seconds=30)


@pytest.fixture
async def client(shared_server: ServerProcess) -> AsyncGenerator[Client]:
    async with await Client.connect(shared_server.address) as connected:
        yield connected


@pytest.fixture
def queue() -> str:
    return f"queue-{secrets.token_hex(4)}"


def new_id() -> str:
    return f"w-{secrets.token_hex(6)}"


@activity.defn
async def price_of(item: str) -> int:
    return len(item)


@workflow.defn
class Cart:
    """A cart that is filled by updates, until a signal."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.is_done = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.is_done and workflow.all_handlers_finished())
        return self.items

    @workflow.update
    def add(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)

    @add.validator
    def check_add(self, item: str) -> None:
        if not item:
            raise ApplicationError("an item has a name", type="NoName")

    @workflow.update
    async def buy(self, item: str) -> int:
        info = workflow.current_update_info()
        assert info is not None
        assert info.name == "buy"
        price = await workflow.execute_activity(price_of, item, start_to_close_timeout=LONG)
        self.items.append(item)
        return price

    @workflow.update
    def spoil(self) -> None:
        raise ApplicationError("spoiled", type="Spoiled")

    @workflow.update
    async def wait_for_end(self) -> None:
        await workflow.wait_condition(lambda: self.is_done)
        await workflow.sleep(600)

    @workflow.signal
    def finish(self) -> None:
        self.is_done = True

    @workflow.signal
    def leave(self) -> None:
        raise ApplicationError("left")

    @workflow.query
    def count(self) -> int:
        return len(self.items)


async def event_names(handle: WorkflowHandle[Any]) -> list[str]:
    return [
        EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        async for event in handle.history()
    ]


BEGUN = [
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
]
TASK = BEGUN[1:]
ACCEPTED = "WORKFLOW_EXECUTION_UPDATE_ACCEPTED"
COMPLETED = "WORKFLOW_EXECUTION_UPDATE_COMPLETED"


async def begun(client: Client, queue: str) -> WorkflowHandle[list[str]]:
    """A run that waits."""
    handle = await client.start_workflow(Cart.run, id=new_id(), task_queue=queue)
    assert await handle.query(Cart.count) == 0
    return handle


def cart_worker(client: Client, queue: str, cached: int = 1_000) -> Worker:
    return Worker(
        client,
        task_queue=queue,
        workflows=[Cart],
        activities=[price_of],
        max_cached_workflows=cached,
    )


@pytest.mark.parametrize("cached", [1_000, 0])
async def test_update_is_accepted_and_completed_in_one_workflow_task(
    client: Client, queue: str, cached: int
) -> None:
    async with cart_worker(client, queue, cached):
        handle = await begun(client, queue)
        assert await handle.execute_update(Cart.add, "tea") == 1
        assert await handle.execute_update("add", "milk", result_type=int) == 2
        assert await event_names(handle) == [*BEGUN, *2 * [*TASK, ACCEPTED, COMPLETED]]
        await handle.signal(Cart.finish)
        assert await handle.result() == ["tea", "milk"]


@pytest.mark.parametrize("cached", [1_000, 0])
async def test_rejected_update_leaves_no_event_and_the_run_goes_on(
    client: Client, queue: str, cached: int
) -> None:
    async with cart_worker(client, queue, cached):
        handle = await begun(client, queue)
        for _ in range(3):
            with pytest.raises(WorkflowUpdateFailedError) as rejected:
                await handle.execute_update(Cart.add, "")
            assert isinstance(rejected.value.cause, ApplicationError)
            assert rejected.value.cause.type == "NoName"
        with pytest.raises(WorkflowUpdateFailedError, match="has no handler"):
            await handle.execute_update("no-such")
        with pytest.raises(WorkflowUpdateFailedError, match="cannot decode"):
            await handle.execute_update("add", 3)
        assert await event_names(handle) == BEGUN
        assert await handle.execute_update(Cart.add, "tea") == 1
        assert await event_names(handle) == [*BEGUN, *TASK, ACCEPTED, COMPLETED]
        await handle.signal(Cart.finish)
        assert await handle.result() == ["tea"]


async def test_async_handler_calls_an_activity_and_its_outcome_comes_later(
    client: Client, queue: str
) -> None:
    async with cart_worker(client, queue):
        handle = await begun(client, queue)
        update = await handle.start_update(
            Cart.buy, "bread", wait_for_stage=UpdateStage.ACCEPTED, update_id="u1"
        )
        assert await update.result() == 5
        assert await event_names(handle) == [
            *BEGUN,
            *TASK,
            ACCEPTED,
            "ACTIVITY_TASK_SCHEDULED",
            "ACTIVITY_TASK_STARTED",
            "ACTIVITY_TASK_COMPLETED",
            *TASK,
            COMPLETED,
        ]
        await handle.signal(Cart.finish)
        assert await handle.result() == ["bread"]
        # It is in the history, and so is its result, for ever.
        assert await handle.get_update_handle("u1", result_type=int).result() == 5
        assert await handle.execute_update(Cart.buy, "bread", update_id="u1") == 5


async def test_update_that_fails_fails_alone(client: Client, queue: str) -> None:
    async with cart_worker(client, queue):
        handle = await begun(client, queue)
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await handle.execute_update(Cart.spoil)
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == "Spoiled"
        assert await event_names(handle) == [*BEGUN, *TASK, ACCEPTED, COMPLETED]
        await handle.signal(Cart.finish)
        assert await handle.result() == []


async def test_update_of_one_id_happens_once(client: Client, queue: str) -> None:
    async with cart_worker(client, queue):
        handle = await begun(client, queue)
        results = await asyncio.gather(
            *(handle.execute_update(Cart.buy, "tea", update_id="once") for _ in range(5))
        )
        assert results == [3] * 5
        assert (await event_names(handle)).count(ACCEPTED) == 1


async def test_updates_wait_for_a_worker_and_outlive_it(client: Client, queue: str) -> None:
    async with cart_worker(client, queue):
        handle = await begun(client, queue)
    waiting = [asyncio.create_task(handle.execute_update(Cart.add, "tea")) for _ in range(3)]
    admitted = await handle.start_update(
        Cart.add, "milk", wait_for_stage=UpdateStage.ADMITTED, update_id="admitted"
    )
    async with cart_worker(client, queue):
        counts = [*await asyncio.gather(*waiting), await admitted.result()]
        assert sorted(counts) == [1, 2, 3, 4]
        assert await handle.query(Cart.count) == 4
        await handle.signal(Cart.finish)
        await handle.result()


async def test_update_whose_run_closes_fails_and_a_closed_run_takes_none(
    client: Client, queue: str
) -> None:
    async with cart_worker(client, queue):
        handle = await begun(client, queue)
        update = await handle.start_update(Cart.wait_for_end, wait_for_stage=UpdateStage.ACCEPTED)
        await handle.signal(Cart.leave)
        with pytest.raises(WorkflowUpdateFailedError) as failed:
            await update.result()
        assert isinstance(failed.value.cause, ApplicationError)
        assert failed.value.cause.type == "AcceptedUpdateCompletedWorkflow"
        with pytest.raises(WorkflowClosedError):
            await handle.execute_update(Cart.add, "tea")
        with pytest.raises(UpdateNotFoundError):
            await handle.get_update_handle("no-such").result()


async def test_update_with_start_goes_along_with_the_first_task(client: Client, queue: str) -> None:
    async with cart_worker(client, queue):
        workflow_id = new_id()

        def operation() -> WithStartWorkflowOperation:
            return WithStartWorkflowOperation(
                Cart.run,
                id=workflow_id,
                task_queue=queue,
                id_conflict_policy=WorkflowIdConflictPolicy.USE_EXISTING,
            )

        first, second = operation(), operation()
        assert (
            await client.execute_update_with_start_workflow(
                Cart.add, "tea", start_workflow_operation=first
            )
            == 1
        )
        assert await event_names(first.workflow_handle) == [*BEGUN, ACCEPTED, COMPLETED]
        assert (
            await client.execute_update_with_start_workflow(
                Cart.add, "milk", start_workflow_operation=second
            )
            == 2
        )
        assert first.workflow_handle.is_new
        assert not second.workflow_handle.is_new
        assert first.workflow_handle.run_id == second.workflow_handle.run_id


@workflow.defn
class Book:
    """A chapter is a run; an update turns to the next."""

    def __init__(self) -> None:
        self.is_turned = False

    @workflow.run
    async def run(self, chapter: int) -> None:
        await workflow.wait_condition(lambda: self.is_turned)
        workflow.continue_as_new(chapter + 1)

    @workflow.update
    def turn(self) -> str:
        self.is_turned = True
        return workflow.info().run_id


async def test_update_that_comes_again_after_the_run_went_on_is_the_same(
    client: Client, queue: str
) -> None:
    async with Worker(client, task_queue=queue, workflows=[Book]):
        book = await client.start_workflow(Book.run, 1, id=new_id(), task_queue=queue)
        assert await book.execute_update(Book.turn, update_id="t1") == book.run_id
        assert await book.execute_update(Book.turn, update_id="t1") == book.run_id
        second = await book.execute_update(Book.turn, update_id="t2")
        assert second != book.run_id
        assert await book.execute_update(Book.turn, update_id="t1") != second
        await book.terminate()
