"""A worker of the load: `python -m tests.fault.chaos.worker ADDRESS`."""

import asyncio
import logging
import sys
from datetime import timedelta
from typing import Final

from aetheris_client import Client
from aetheris_worker import Worker, run_until_signal
from tests.fault.chaos.workflows import ACTIVITIES, TASK_QUEUE, WORKFLOWS

# It may be started while its server is away.
_CONNECT_TIMEOUT: Final = timedelta(minutes=5)


async def _main(address: str) -> None:
    async with await Client.connect(address, connect_timeout=_CONNECT_TIMEOUT) as client:
        await run_until_signal(
            Worker(client, task_queue=TASK_QUEUE, workflows=WORKFLOWS, activities=ACTIVITIES)
        )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    asyncio.run(_main(sys.argv[1]))
