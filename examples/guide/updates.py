"""Updates: requests to a run that have an answer."""

import asyncio
from datetime import timedelta

from aetheris_client import (
    Client,
    UpdateStage,
    WithStartWorkflowOperation,
    WorkflowIdConflictPolicy,
)
from aetheris_client.errors import ApplicationError, WorkflowUpdateFailedError
from aetheris_worker import Worker, activity, workflow

TASK_QUEUE = "guide-updates"


@activity.defn
async def price_of(item: str) -> int:
    """Look it up."""
    return 10 * len(item)


@workflow.defn(waits_for_handlers=True)
class Cart:
    """Gather items until it is told to check out."""

    def __init__(self) -> None:
        self._prices: dict[str, int] = {}
        self._is_done = False

    @workflow.run
    async def run(self) -> int:
        """Give what all items cost."""
        await workflow.wait_condition(lambda: self._is_done)
        return sum(self._prices.values())

    @workflow.update
    async def add(self, item: str) -> int:
        """Put an item in, and say what it costs."""
        price = await workflow.execute_activity(
            price_of, item, start_to_close_timeout=timedelta(seconds=10)
        )
        self._prices[item] = price
        return price

    @add.validator
    def check_add(self, item: str) -> None:
        """Only looks; what it raises rejects the update, which then has never been."""
        if item in self._prices:
            raise ApplicationError(f"{item} are in the cart already")

    @workflow.update
    def check_out(self) -> int:
        """Take no more, and say how many items there are."""
        self._is_done = True
        return len(self._prices)


async def main() -> None:
    """Fill a cart."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Cart], activities=[price_of]),
    ):
        cart = await client.start_workflow(Cart.run, id="cart-1", task_queue=TASK_QUEUE)
        assert await cart.execute_update(Cart.add, "apples") == 60

        reason = ""
        try:
            await cart.execute_update(Cart.add, "apples")
        except WorkflowUpdateFailedError as error:
            reason = str(error.cause)
        assert reason == "apples are in the cart already"

        # Accepted: it will happen, whatever becomes of this program. Once, by its id.
        adding = await cart.start_update(
            Cart.add, "pears", wait_for_stage=UpdateStage.ACCEPTED, update_id="click-7"
        )
        assert await cart.execute_update(Cart.add, "pears", update_id="click-7") == 50
        assert await adding.result() == 50

        assert await cart.execute_update(Cart.check_out) == 2
        assert await cart.result() == 110
        # The outcome stays in the history.
        assert await cart.get_update_handle("click-7").result() == 50

        # Of one who cannot know whether there is a cart: the first begins it, the others add to it.
        for item, price in (("plums", 50), ("figs", 40)):
            operation = WithStartWorkflowOperation(
                Cart.run,
                id="cart-2",
                task_queue=TASK_QUEUE,
                id_conflict_policy=WorkflowIdConflictPolicy.USE_EXISTING,
            )
            added = await client.execute_update_with_start_workflow(
                Cart.add, item, start_workflow_operation=operation
            )
            assert added == price
            assert operation.workflow_handle.is_new is (item == "plums")
        assert await client.get_workflow_handle("cart-2").execute_update(Cart.check_out) == 2


if __name__ == "__main__":
    asyncio.run(main())
