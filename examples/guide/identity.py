"""Identity: which run has a workflow id, what a second start does, and how a run is tried again."""

import asyncio
from datetime import timedelta

from aetheris_client import (
    Client,
    RetryPolicy,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
)
from aetheris_client.errors import (
    ApplicationError,
    WorkflowAlreadyStartedError,
    WorkflowNotFoundError,
)
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-identity"


@workflow.defn
class Order:
    """Find stock at the third attempt."""

    @workflow.run
    async def run(self) -> str:
        """Give which attempt it was."""
        attempt = workflow.info().attempt
        if attempt < 3:
            raise ApplicationError("no stock yet", type="NoStock")
        return f"shipped by attempt {attempt}"


async def main() -> None:
    """Start an order, again, and once more when it is done."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Order]),
    ):
        order = await client.start_workflow(
            Order.run,
            id="order-1",
            task_queue=TASK_QUEUE,
            start_delay=timedelta(seconds=0.5),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50)),
        )
        # While it is open, a start with its id is refused, or told to take that run.
        same = await client.start_workflow(
            Order.run,
            id="order-1",
            task_queue=TASK_QUEUE,
            id_conflict_policy=WorkflowIdConflictPolicy.USE_EXISTING,
        )
        assert not same.is_new
        # Each attempt is a run of its own; the handle waits for the last one of the chain.
        assert await order.result() == "shipped by attempt 3"

        # It has completed: the id is free, unless the caller wants it only after a failure.
        try:
            await client.start_workflow(
                Order.run,
                id="order-1",
                task_queue=TASK_QUEUE,
                id_reuse_policy=WorkflowIdReusePolicy.ALLOW_DUPLICATE_FAILED_ONLY,
            )
        except WorkflowAlreadyStartedError as error:
            print(f"refused: {error}")
        other = await client.start_workflow(
            Order.run, id="order-1", task_queue=TASK_QUEUE, start_delay=timedelta(hours=1)
        )

        # The first handle is bound to its chain: it never touches what has the id since.
        try:
            await order.terminate()
        except WorkflowNotFoundError as error:
            print(f"not this one: {error}")
        await other.terminate()


if __name__ == "__main__":
    asyncio.run(main())
