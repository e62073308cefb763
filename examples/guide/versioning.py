"""Patches: new code for runs that begin now, the old for those that are under way."""

import asyncio

from aetheris_client import Client
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-versioning"


@workflow.defn(name="Invoice")
class Before:
    """The code as it was."""

    def __init__(self) -> None:
        self._is_paid = False

    @workflow.run
    async def run(self, amount: int) -> str:
        """Wait for the money."""
        await workflow.wait_condition(lambda: self._is_paid)
        return f"paid {amount}"

    @workflow.signal
    def pay(self) -> None:
        """It has come."""
        self._is_paid = True

    @workflow.query
    def is_paid(self) -> bool:
        """Whether it has."""
        return self._is_paid


@workflow.defn(name="Invoice")
class After:
    """The code as it is: there is a discount, for those who begin with it."""

    def __init__(self) -> None:
        self._is_paid = False

    @workflow.run
    async def run(self, amount: int) -> str:
        """Wait for the money, and less of it."""
        if workflow.patched("discount"):
            await workflow.sleep(0.01)
            amount -= amount // 10
        await workflow.wait_condition(lambda: self._is_paid)
        return f"paid {amount}"

    @workflow.signal
    def pay(self) -> None:
        """It has come."""
        self._is_paid = True


async def main() -> None:
    """Change the code while a run waits."""
    async with await Client.connect() as client:
        async with Worker(client, task_queue=TASK_QUEUE, workflows=[Before]):
            old = await client.start_workflow(
                Before.run, 100, id="invoice-1", task_queue=TASK_QUEUE
            )
            # Answered when the run's code has begun.
            assert not await old.query(Before.is_paid)
        async with Worker(client, task_queue=TASK_QUEUE, workflows=[After]):
            new = await client.start_workflow(After.run, 100, id="invoice-2", task_queue=TASK_QUEUE)
            for invoice in (old, new):
                await invoice.signal(After.pay)
            assert await old.result() == "paid 100"
            assert await new.result() == "paid 90"


if __name__ == "__main__":
    asyncio.run(main())
