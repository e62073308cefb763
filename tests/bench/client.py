"""The client process of the benchmark: runs workflows and prints their latencies as JSON.

`python -m tests.bench.client ADDRESS RUNS CONCURRENCY [parked]`; parked ones are only started.
"""

import asyncio
import sys
import time
import uuid

import orjson
import uvloop

from aetheris_client import Client
from tests.bench.job import TASK_QUEUE, Parked, Simple


async def _main(address: str, runs: int, concurrency: int, parked: bool) -> None:
    client = await Client.connect(address)
    prefix = uuid.uuid4().hex
    latencies: list[float] = []
    numbers = iter(range(runs))

    async def run_one(id_: str) -> None:
        if parked:
            await client.start_workflow(Parked.run, id=id_, task_queue=TASK_QUEUE)
            return
        result = await client.execute_workflow(Simple.run, "world", id=id_, task_queue=TASK_QUEUE)
        assert result == "hello, world", result

    async def run_some() -> None:
        for number in numbers:
            start = time.perf_counter()
            await run_one(f"{prefix}-{number}")
            latencies.append(time.perf_counter() - start)

    start_cpu, start = time.process_time(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(run_some())
    report = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "latencies": latencies,
    }
    sys.stdout.buffer.write(orjson.dumps(report))
    await client.close()


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), "parked" in sys.argv[4:]))
