"""The worker process of the benchmark: `python -m tests.bench.worker ADDRESS`."""

import sys

import uvloop

from aetheris_worker import Worker, run_until_signal
from tests.bench.job import (
    TASK_QUEUE,
    Family,
    FanOut,
    LocalSteps,
    Nothing,
    Parked,
    Simple,
    Steps,
    greet,
)


async def _main(address: str) -> None:
    worker = Worker(
        address,
        task_queue=TASK_QUEUE,
        workflows=[Simple, Steps, LocalSteps, FanOut, Family, Nothing, Parked],
        activities=[greet],
        max_concurrent_activities=200,
        max_concurrent_workflow_tasks=200,
    )
    await run_until_signal(worker)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1]))
