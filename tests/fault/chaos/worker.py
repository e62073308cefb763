"""A worker of the load: `python -m tests.fault.chaos.worker ADDRESS`."""

import asyncio
import logging
import sys

from aetheris_client import Client
from aetheris_worker import Worker, run_until_signal
from tests.fault.chaos.workflows import ACTIVITIES, TASK_QUEUE, WORKFLOWS


async def _main(address: str) -> None:
    async with await Client.connect(address) as client:
        await run_until_signal(
            Worker(client, task_queue=TASK_QUEUE, workflows=WORKFLOWS, activities=ACTIVITIES)
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_main(sys.argv[1]))
