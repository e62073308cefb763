"""Families of runs by real workers: cancelled together, and many at once."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest

from aetheris_client import Client
from aetheris_client.errors import CancelledError, WorkflowFailedError
from aetheris_worker import Worker, workflow
from tests.support.processes import ServerProcess
from tests.support.wait import wait_until

_CHILDREN = 1_000


@workflow.defn
class Waiter:
    """Ends when it is asked to cancel, after a moment."""

    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.wait_condition(lambda: False)
        finally:
            await workflow.sleep(0.01)


@workflow.defn
class WaitingParent:
    """Waits for a child, and says that it does."""

    def __init__(self) -> None:
        self.is_waiting = False

    @workflow.run
    async def run(self, cancellation_type: str) -> None:
        how = workflow.ChildWorkflowCancellationType[cancellation_type]
        id_ = f"{workflow.info().workflow_id}-child"
        handle = await workflow.start_child_workflow(Waiter.run, id=id_, cancellation_type=how)
        self.is_waiting = True
        await handle

    @workflow.query
    def waits(self) -> bool:
        return self.is_waiting


@workflow.defn
class Echo:
    @workflow.run
    async def run(self, number: int) -> int:
        return number


@workflow.defn
class ManyChildren:
    @workflow.run
    async def run(self, count: int) -> int:
        prefix = workflow.info().workflow_id
        return sum(
            await asyncio.gather(
                *(
                    workflow.execute_child_workflow(Echo.run, number, id=f"{prefix}-{number}")
                    for number in range(count)
                )
            )
        )


@pytest.fixture
async def served(shared_server: ServerProcess) -> AsyncGenerator[tuple[Client, str]]:
    """A client, and the queue of a worker."""
    queue = f"queue-{secrets.token_hex(4)}"
    async with await Client.connect(shared_server.address) as client:
        worker = Worker(
            client, task_queue=queue, workflows=[Waiter, WaitingParent, Echo, ManyChildren]
        )
        async with worker:
            yield client, queue


@pytest.mark.parametrize(
    "cancellation_type,is_child_cancelled",
    [
        ("WAIT_CANCELLATION_COMPLETED", True),
        ("WAIT_CANCELLATION_REQUESTED", True),
        ("TRY_CANCEL", True),
        # What the parent's end does with it: it is terminated.
        ("ABANDON", False),
    ],
)
async def test_parent_that_is_cancelled_cancels_its_child_as_it_says(
    served: tuple[Client, str], cancellation_type: str, is_child_cancelled: bool
) -> None:
    client, queue = served
    id_ = f"parent-{secrets.token_hex(4)}"
    parent = await client.start_workflow(
        WaitingParent.run, cancellation_type, id=id_, task_queue=queue
    )
    await wait_until(lambda: parent.query(WaitingParent.waits), 10, "the child to be waited for")
    await parent.cancel()
    with pytest.raises(WorkflowFailedError) as failed:
        await parent.result()
    assert isinstance(failed.value.cause, CancelledError)
    with pytest.raises(WorkflowFailedError) as child_failed:
        await client.get_workflow_handle(f"{id_}-child").result()
    if cancellation_type in ("WAIT_CANCELLATION_COMPLETED", "ABANDON"):
        assert isinstance(child_failed.value.cause, CancelledError) == is_child_cancelled


async def test_parent_of_a_thousand_children_has_all_their_results(
    served: tuple[Client, str],
) -> None:
    client, queue = served
    id_ = f"parent-{secrets.token_hex(4)}"
    async with asyncio.timeout(60):
        total = await client.execute_workflow(ManyChildren.run, _CHILDREN, id=id_, task_queue=queue)
    assert total == sum(range(_CHILDREN))
