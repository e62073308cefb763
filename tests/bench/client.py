"""The client process of the benchmark: runs workflows and prints their latencies as JSON.

`python -m tests.bench.client ADDRESS RUNS CONCURRENCY`
"""

import asyncio
import sys
import time
import uuid

import orjson
import uvloop

from aetheris_client import Client
from tests.bench.job import TASK_QUEUE, Simple


async def _main(address: str, runs: int, concurrency: int) -> None:
    client = await Client.connect(address)
    prefix = uuid.uuid4().hex
    latencies: list[float] = []
    numbers = iter(range(runs))

    async def run_some() -> None:
        for number in numbers:
            start = time.perf_counter()
            result = await client.execute_workflow(
                Simple.run, "world", id=f"{prefix}-{number}", task_queue=TASK_QUEUE
            )
            latencies.append(time.perf_counter() - start)
            assert result == "hello, world", result

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
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
