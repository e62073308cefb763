"""Local activities: short steps that run in the worker, beside the workflow that asks for them."""

import asyncio
import os
from datetime import timedelta

from aetheris_client import Client
from aetheris_worker import RetryPolicy, Worker, activity, workflow

TASK_QUEUE = "guide-local-activities"
SECOND = timedelta(seconds=1)


@activity.defn
async def look_up(item: str) -> int:
    """Give the price of an item."""
    assert activity.info().is_local
    return {"apples": 3, "pears": 4}[item]


@activity.defn
def convert(amount: int) -> float:
    """Fail at first, as things do."""
    if activity.info().attempt == 1:
        raise ConnectionError("no rate")
    return amount * 1.25


@workflow.defn
class Quote:
    """Steps that take milliseconds."""

    @workflow.run
    async def run(self, items: list[str]) -> float:
        """Give the price of all, in another currency."""
        host = workflow.side_effect(lambda: os.uname().nodename)
        workflow.logger.info("quoted on %s", host)
        prices = await asyncio.gather(
            *(
                workflow.execute_local_activity(look_up, item, start_to_close_timeout=SECOND)
                for item in items
            )
        )
        return await workflow.execute_local_activity(
            convert,
            sum(prices),
            schedule_to_close_timeout=10 * SECOND,
            retry_policy=RetryPolicy(initial_interval=SECOND / 10),
        )


async def main() -> None:
    """Ask for a quote."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Quote], activities=[look_up, convert]),
    ):
        handle = await client.start_workflow(
            Quote.run, ["apples", "pears"], id="quote-1", task_queue=TASK_QUEUE
        )
        assert await handle.result() == 8.75


if __name__ == "__main__":
    asyncio.run(main())
