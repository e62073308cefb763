"""Reset and fork: a run begins again from a point of it, with its past as it was."""

import asyncio
from datetime import timedelta

from aetheris_client import Client, ReapplyExclude, ResetPoint
from aetheris_worker import Worker, activity, workflow

TASK_QUEUE = "guide-reset-and-fork"

prices = {"bread": 4}


@activity.defn
async def look_up_price(item: str) -> int:
    """Ask the shop."""
    return prices[item]


@workflow.defn
class Order:
    """Look up what something costs, and wait for who approves it."""

    def __init__(self) -> None:
        self._approver = ""

    @workflow.run
    async def run(self, item: str) -> str:
        """Say what was approved, and by whom."""
        price = await workflow.execute_activity(
            look_up_price, item, start_to_close_timeout=timedelta(seconds=10)
        )
        await workflow.wait_condition(lambda: self._approver != "")
        return f"{item} for {price}, approved by {self._approver}"

    @workflow.signal
    def approve(self, approver: str) -> None:
        """Let it be bought."""
        self._approver = approver


async def main() -> None:
    """Have an order decided again, in other ways."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Order], activities=[look_up_price]),
    ):
        order = await client.start_workflow(Order.run, "bread", id="order-1", task_queue=TASK_QUEUE)
        await order.signal(Order.approve, "Ada")
        assert await order.result() == "bread for 4, approved by Ada"

        # The price was wrong: from its first decision on, everything is done again. The signal,
        # which came later, comes again.
        prices["bread"] = 3
        order = await order.reset(ResetPoint.first(), reason="the price was wrong")
        assert await order.result() == "bread for 3, approved by Ada"

        # What if Bob had approved it? The order itself does not change.
        what_if = await client.fork_workflow(
            order, ResetPoint.first(), id="order-1-bob", exclude=[ReapplyExclude.SIGNAL]
        )
        await what_if.signal(Order.approve, "Bob")
        assert await what_if.result() == "bread for 3, approved by Bob"
        info = (await what_if.describe()).reset
        assert info is not None
        assert (info.base_workflow_id, info.base_run_id) == ("order-1", order.run_id)


if __name__ == "__main__":
    asyncio.run(main())
