"""Signals: what people and programs tell a run while it goes on."""

import asyncio

from aetheris_client import Client
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-signals"


@workflow.defn
class Cart:
    """Gather items until it is told to check out."""

    def __init__(self) -> None:
        self._items: list[str] = []
        self._is_done = False

    @workflow.run
    async def run(self) -> list[str]:
        """Give what has been gathered."""
        await workflow.wait_condition(lambda: self._is_done)
        return self._items

    @workflow.signal
    def add(self, item: str) -> None:
        """Put an item in."""
        self._items.append(item)

    @workflow.signal
    def check_out(self) -> None:
        """Take no more."""
        self._is_done = True


async def main() -> None:
    """Fill a cart."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Cart]),
    ):
        cart = await client.start_workflow(Cart.run, id="cart-1", task_queue=TASK_QUEUE)
        await cart.signal(Cart.add, "apples")
        # Recorded once, however often it is sent.
        await cart.signal(Cart.add, "pears", request_id="click-7")
        await cart.signal(Cart.add, "pears", request_id="click-7")
        await cart.signal(Cart.check_out)
        assert await cart.result() == ["apples", "pears"]

        # Of one who cannot know whether there is a cart: the first begins it, the others add to it.
        for item in ("plums", "figs"):
            cart = await client.start_workflow(
                Cart.run,
                id="cart-2",
                task_queue=TASK_QUEUE,
                start_signal=Cart.add,
                start_signal_args=[item],
            )
        await cart.signal(Cart.check_out)
        assert await cart.result() == ["plums", "figs"]


if __name__ == "__main__":
    asyncio.run(main())
