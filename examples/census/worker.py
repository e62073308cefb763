"""A worker of the census, as a process of its own.

python -m examples.census.worker --address localhost:7233 --capability parse
"""

import argparse
import asyncio
import logging
import os

from aetheris_client import Client
from aetheris_worker import Worker, run_until_signal
from examples.census.activities import analyse_file, list_files, publish
from examples.census.workflow import TASK_QUEUE, Census


async def run(address: str | None, name: str, capabilities: list[str], slots: int) -> None:
    """Work until SIGINT or SIGTERM."""
    async with await Client.connect(address) as client:
        worker = Worker(
            client,
            task_queue=TASK_QUEUE,
            workflows=[Census],
            activities=[list_files, analyse_file, publish],
            capabilities=capabilities,
            max_concurrent_activities=slots,
            identity=f"{name}-{os.getpid()}",
        )
        await run_until_signal(worker)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.census.worker", description=__doc__)
    parser.add_argument("--address", help="host:port; AETHERIS_ADDRESS, else localhost:7233")
    parser.add_argument("--name", default="worker", help="the first part of its identity")
    parser.add_argument("--capability", action="append", default=[], metavar="NAME")
    parser.add_argument("--slots", type=int, default=4, help="activities at a time")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level="INFO")
    asyncio.run(run(arguments.address, arguments.name, arguments.capability, arguments.slots))


if __name__ == "__main__":
    main()
