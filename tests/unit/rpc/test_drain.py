import asyncio

import pytest

from aetheris_server.rpc.drain import DrainGate
from tests.support.wait import wait_until


async def forever(cancelled: list[bool]) -> str:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        cancelled.append(True)
        raise
    return "never"


async def test_gate_passes_the_result_on() -> None:
    gate = DrainGate()
    assert await gate.run(asyncio.sleep(0, "result"), 10) == "result"
    assert gate.wait_count == 0


async def test_gate_gives_none_when_the_time_is_up() -> None:
    cancelled: list[bool] = []
    assert await DrainGate().run(forever(cancelled), 0.01) is None
    assert cancelled


async def test_drain_ends_every_wait_at_once() -> None:
    gate, cancelled = DrainGate(), list[bool]()
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waits = [group.create_task(gate.run(forever(cancelled), 60)) for _ in range(3)]
        await wait_until(lambda: gate.wait_count == 3)
        gate.begin_drain()
    assert [wait.result() for wait in waits] == [None] * 3
    assert len(cancelled) == 3


async def test_wait_after_drain_never_begins() -> None:
    gate, cancelled = DrainGate(), list[bool]()
    gate.begin_drain()
    gate.begin_drain()
    assert await gate.run(forever(cancelled), 60) is None
    assert not cancelled


async def test_timeout_of_the_work_itself_is_raised() -> None:
    async def work() -> None:
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await DrainGate().run(work(), 60)


async def test_cancelling_the_caller_cancels_the_work() -> None:
    gate, cancelled = DrainGate(), list[bool]()
    task = asyncio.create_task(gate.run(forever(cancelled), 60))
    await wait_until(lambda: gate.wait_count)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled
    assert gate.wait_count == 0
