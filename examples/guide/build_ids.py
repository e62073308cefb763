"""Build ids: which of a run's tasks go to which workers, while several builds are at work."""

import asyncio

from aetheris_client import Client
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-build-ids"


@workflow.defn(version="2")
class Order:
    """Wait until it is shipped, and tell which builds have worked on it."""

    def __init__(self) -> None:
        self._is_shipped = False

    @workflow.run
    async def run(self) -> list[str]:
        """The builds, in order."""
        first = workflow.build_id()
        await workflow.wait_condition(lambda: self._is_shipped)
        return [first, workflow.build_id()]

    @workflow.signal
    def ship(self) -> None:
        """It is on its way."""
        self._is_shipped = True

    @workflow.query
    def is_shipped(self) -> bool:
        """Whether it is."""
        return self._is_shipped


async def main() -> None:
    """Roll a build out, and one run back."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Order], build_id="blue"),
        Worker(client, task_queue=TASK_QUEUE, workflows=[Order], build_id="green"),
    ):
        # Runs go to the build that their queue prefers, at once, those that are under way as well.
        await client.operator.update_task_queue(TASK_QUEUE, default_build_id="blue")
        order = await client.start_workflow(Order.run, id="order-1", task_queue=TASK_QUEUE)
        assert await order.query(Order.is_shipped) is False
        await client.operator.update_task_queue(TASK_QUEUE, default_build_id="green")
        await order.signal(Order.ship)
        assert await order.result() == ["blue", "green"]

        # A run that is pinned stays with its build, until it is moved.
        pinned = await client.start_workflow(
            Order.run, id="order-2", task_queue=TASK_QUEUE, pinned_build_id="blue"
        )
        assert await pinned.query(Order.is_shipped) is False
        await pinned.update_options(pinned_build_id="green", reason="blue has a mistake")
        assert (await pinned.describe()).pinned_build_id == "green"
        await pinned.signal(Order.ship)
        assert await pinned.result() == ["blue", "green"]


if __name__ == "__main__":
    asyncio.run(main())
