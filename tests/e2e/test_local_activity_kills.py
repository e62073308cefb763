"""SIGKILL between the steps of a chain of local activities: of the worker, and of the server."""

import asyncio
import secrets
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from aetheris.api.v1.history_pb2 import History
from aetheris_client import Client
from aetheris_worker import Worker, activity, workflow
from aetheris_worker.testing import Replayer
from tests.e2e.local_worker import STEPS, Notes
from tests.support.log_audit import audit_log
from tests.support.processes import FAST, ServerProcess, running, start_arguments
from tests.support.raw import types

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def worker_process(
    address: str, queue: str, effects: Path, point: str = "never", step: int = 0
) -> AsyncGenerator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.e2e.local_worker"),
        *(address, queue, str(effects), point, str(step)),
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def history_of(client: Client, workflow_id: str) -> History:
    handle = client.get_workflow_handle(workflow_id)
    return History(events=[event async for event in handle.history()])


@pytest.mark.parametrize("point", ["before", "after"])
@pytest.mark.parametrize("step", [0, 2])
async def test_worker_killed_at_a_step_repeats_that_step_alone(
    shared_server: ServerProcess, tmp_path: Path, point: str, step: int
) -> None:
    queue = f"local-{secrets.token_hex(4)}"
    effects = tmp_path / "effects"
    async with await Client.connect(shared_server.address) as client:
        handle = await client.start_workflow(
            Notes.run, id=queue, task_queue=queue, task_timeout=timedelta(seconds=1)
        )
        async with worker_process(shared_server.address, queue, effects, point, step) as first:
            assert await first.wait() == -signal.SIGKILL
        async with worker_process(shared_server.address, queue, effects):
            assert await handle.result() == list(range(STEPS))
        history = await history_of(client, queue)
    twice = [step] if point == "after" else []
    assert [int(line) for line in effects.read_text().split()] == sorted([*range(STEPS), *twice])
    assert types(history.events).count("MARKER_RECORDED") == STEPS
    Replayer(workflows=[Notes]).replay(history)


SEEN: list[int] = []
REACHED: list[Callable[[], None]] = []


@activity.defn
async def step_of(number: int) -> int:
    SEEN.append(number)
    if number == 3 and REACHED:
        REACHED.pop()()
    await asyncio.sleep(0.02)
    return number


@workflow.defn
class Steps:
    @workflow.run
    async def run(self) -> list[int]:
        return [
            await workflow.execute_local_activity(
                step_of, number, start_to_close_timeout=timedelta(seconds=30)
            )
            for number in range(8)
        ]


async def test_server_killed_between_steps_loses_none_and_records_none_twice(
    migrated_postgres_dsn: str, redis_url: str, tmp_path: Path
) -> None:
    SEEN.clear()
    process = ServerProcess(
        tmp_path,
        start_arguments(migrated_postgres_dsn, redis_url),
        {**FAST, "AETHERIS_REDIS__KEY_PREFIX": f"local-{secrets.token_hex(4)}"},
    )
    reached = asyncio.Event()
    REACHED[:] = [reached.set]
    async with (
        running(process),
        await Client.connect(process.address) as client,
        Worker(client, task_queue="steps", workflows=[Steps], activities=[step_of]),
    ):
        handle = await client.start_workflow(Steps.run, id="steps", task_queue="steps")
        await reached.wait()
        await process.kill()
        await process.start()
        assert await handle.result() == list(range(8))
        history = await history_of(client, "steps")
    assert types(history.events).count("MARKER_RECORDED") == 8
    # What was recorded does not run again.
    assert SEEN[:4] == [0, 1, 2, 3]
    assert SEEN[4:] in ([3, *range(4, 8)], list(range(4, 8)))
    Replayer(workflows=[Steps]).replay(history)
    audit_log(migrated_postgres_dsn)
