"""Long-lived tasks, and how they end.

Python code that waits may swallow a cancellation: a library turns it into an error of its own, or
gives a result that had just come. A loop that goes on after errors would then wait again and never
end. So each loop asks `is_cancelled` before each round and waits between rounds by `pause`, and
whoever ends loops cancels them again until they have ended.
"""

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

__all__ = ["end_tasks", "is_cancelled", "pause", "run_loops", "run_to_end"]

T = TypeVar("T")

# Long enough for a task to tidy up, which a second cancellation would cut short.
_CANCEL_INTERVAL = 0.5


def is_cancelled() -> bool:
    """Whether the current task has been asked to end, whatever became of the request."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def pause(seconds: float, unless: asyncio.Event | None = None) -> None:
    """Wait for some seconds, or until the event is set; not at all for a task that is to end.

    Raises:
        asyncio.CancelledError: The task has been cancelled, meanwhile or before.
    """
    if is_cancelled():
        raise asyncio.CancelledError
    if unless is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await unless.wait()
    except TimeoutError:
        return


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they have ended. What they raise is theirs; this one may be cancelled
    meanwhile, and says so when they have.
    """
    error: asyncio.CancelledError | None = None
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        try:
            _, pending = await asyncio.wait(pending, timeout=_CANCEL_INTERVAL)
        except asyncio.CancelledError as raised:
            error = raised
            pending = {task for task in pending if not task.done()}
    if error is not None:
        raise error


async def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run work that must not be cut short; a cancellation of this takes effect after it.

    Raises:
        Exception: What the work raised.
    """
    running = asyncio.create_task(work)
    cancellation: asyncio.CancelledError | None = None
    while not running.done():
        try:
            await asyncio.wait([running])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation
    return running.result()


async def run_loops(*loops: Coroutine[Any, Any, None]) -> None:
    """Run loops until cancelled, or until one fails; ends all of them.

    Raises:
        Exception: What the first to fail raised.
    """
    tasks = [asyncio.create_task(loop, name=loop.__qualname__) for loop in loops]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end_tasks(tasks)
    for task in done:
        task.result()
