"""Queries: questions to a run's code, which change nothing."""

import asyncio
from dataclasses import dataclass

from aetheris_client import Client
from aetheris_client.enums import QueryRejectCondition
from aetheris_client.errors import QueryRejectedError
from aetheris_worker import Worker, workflow

TASK_QUEUE = "guide-queries"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a count has come."""

    done: int
    limit: int


@workflow.defn
class Count:
    """Count signals up to a limit."""

    def __init__(self) -> None:
        self._done = 0
        self._limit = 0

    @workflow.run
    async def run(self, limit: int) -> int:
        """Give the limit once it is reached."""
        self._limit = limit
        await workflow.wait_condition(lambda: self._done >= limit)
        return self._done

    @workflow.signal
    def tick(self) -> None:
        """Count one."""
        self._done += 1

    @workflow.query
    def progress(self) -> Progress:
        """How far it is."""
        return Progress(self._done, self._limit)


async def main() -> None:
    """Ask a run while it goes on, and when it has closed."""
    async with (
        await Client.connect() as client,
        Worker(client, task_queue=TASK_QUEUE, workflows=[Count]),
    ):
        count = await client.start_workflow(Count.run, 2, id="count-1", task_queue=TASK_QUEUE)
        await count.signal(Count.tick)
        # It sees every signal that was acknowledged before it was asked.
        assert await count.query(Count.progress) == Progress(1, 2)

        await count.signal(Count.tick)
        assert await count.result() == 2
        assert await count.query(Count.progress) == Progress(2, 2)
        try:
            await count.query(Count.progress, reject_condition=QueryRejectCondition.NOT_OPEN)
        except QueryRejectedError as error:
            print(error)
        else:
            raise AssertionError


if __name__ == "__main__":
    asyncio.run(main())
