"""The client process of the benchmark: runs workflows and prints their latencies as JSON.

`python -m tests.bench.client ADDRESS RUNS CONCURRENCY [SHAPE]`. A shape is `simple`, the default;
`steps:N` or `local:N`, with N activities or local ones, one after another; `fanout:N`, at once;
`children:N`, with N children at once that do nothing; or `parked`, which are only started.
"""

import asyncio
import sys
import time
import uuid

import orjson
import uvloop

from aetheris_client import Client
from tests.bench.job import TASK_QUEUE, Family, FanOut, LocalSteps, Parked, Simple, Steps


async def _run_one(client: Client, shape: str, id_: str) -> None:
    kind, _, count = shape.partition(":")
    match kind:
        case "simple":
            greeting = await client.execute_workflow(
                Simple.run, "world", id=id_, task_queue=TASK_QUEUE
            )
            assert greeting == "hello, world", greeting
        case "steps" | "local" | "fanout" | "children":
            flow = {"steps": Steps, "local": LocalSteps, "fanout": FanOut, "children": Family}[kind]
            done = await client.execute_workflow(
                flow.run, int(count), id=id_, task_queue=TASK_QUEUE
            )
            assert done == int(count), done
        case "parked":
            await client.start_workflow(Parked.run, id=id_, task_queue=TASK_QUEUE)
        case _:
            raise ValueError(f"no such shape: {shape}")


async def _main(address: str, runs: int, concurrency: int, shape: str) -> None:
    client = await Client.connect(address)
    prefix = uuid.uuid4().hex
    latencies: list[float] = []
    numbers = iter(range(runs))

    async def run_some() -> None:
        for number in numbers:
            start = time.perf_counter()
            await _run_one(client, shape, f"{prefix}-{number}")
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
    address, runs, concurrency, *shape = sys.argv[1:]
    uvloop.run(_main(address, int(runs), int(concurrency), *(shape or ["simple"])))
