"""A client: starts one run, and waits for its result."""

import argparse
import asyncio

from aetheris_client import Client
from examples.hello.hello import TASK_QUEUE, Hello


async def main(name: str, workflow_id: str) -> None:
    """Greet `name`."""
    async with await Client.connect() as client:
        greeting = await client.execute_workflow(
            Hello.run, name, id=workflow_id, task_queue=TASK_QUEUE
        )
        print(greeting)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.hello.client")
    parser.add_argument("name", nargs="?", default="world")
    parser.add_argument("--workflow-id", default="hello-1")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.name, arguments.workflow_id))
