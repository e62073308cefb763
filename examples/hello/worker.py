"""A worker: runs the workflow and the activity until Ctrl-C."""

import asyncio
import logging

from aetheris_client import Client
from aetheris_worker import Worker, run_until_signal
from examples.hello.hello import TASK_QUEUE, Hello, greet


async def main() -> None:
    """Connect to AETHERIS_ADDRESS, else localhost:7233, and work."""
    logging.basicConfig(level=logging.INFO)
    async with await Client.connect() as client:
        worker = Worker(client, task_queue=TASK_QUEUE, workflows=[Hello], activities=[greet])
        await run_until_signal(worker)


if __name__ == "__main__":
    asyncio.run(main())
