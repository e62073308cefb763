"""Loops end when they are cancelled, whatever becomes of the cancellation."""

import asyncio

import pytest

from aetheris_server.loops import end_tasks, is_cancelled, run_loops


async def _wait_for_ever() -> None:
    await asyncio.get_running_loop().create_future()


async def _swallow(waits: int) -> None:
    """Swallow as many cancellations."""
    for _ in range(waits):
        try:
            await _wait_for_ever()
        except asyncio.CancelledError:
            continue


async def test_task_knows_that_it_was_cancelled_though_an_await_swallowed_it() -> None:
    async def work() -> bool:
        before = is_cancelled()
        await _swallow(1)
        return is_cancelled() and not before

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    assert await task


async def test_timeout_is_no_cancellation() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await _wait_for_ever()
    assert not is_cancelled()


@pytest.mark.parametrize("waits", [1, 2, 4])
async def test_tasks_that_swallow_cancellations_are_ended(waits: int) -> None:
    tasks = [asyncio.create_task(_swallow(waits)) for _ in range(3)]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_tasks(tasks)
    assert all(task.done() for task in tasks)


async def test_end_of_tasks_that_is_cancelled_itself_ends_them_all_the_same() -> None:
    tasks = [asyncio.create_task(_swallow(2))]
    await asyncio.sleep(0)
    ending = asyncio.create_task(end_tasks(tasks))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert tasks[0].done()


async def test_loop_that_fails_ends_the_others() -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await _wait_for_ever()
        finally:
            ended.append("other")

    async def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        await run_loops(other(), fail())
    assert ended == ["other"]


async def test_loops_that_are_cancelled_are_all_ended() -> None:
    task = asyncio.create_task(run_loops(_wait_for_ever(), _swallow(1), _swallow(2)))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_tasks([task])
    assert task.cancelled()
