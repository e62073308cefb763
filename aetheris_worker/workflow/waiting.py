"""Waiting, in an order that replay repeats."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from aetheris_worker.workflow.current_run import current_run

R = TypeVar("R")


async def sleep(duration: float | timedelta) -> None:
    """Wait; a durable timer, in seconds. The wait outlives workers and servers."""
    await asyncio.sleep(_seconds(duration))


async def wait_condition(
    predicate: Callable[[], bool], *, timeout: float | timedelta | None = None
) -> None:
    """Wait until the predicate holds; it is asked whenever the run has moved, and may only look.

    Raises:
        TimeoutError: The time was up first.
    """
    limit = None if timeout is None else _seconds(timeout)
    await current_run("wait_condition").wait_condition(predicate, limit)


async def wait(
    awaitables: Sequence["asyncio.Future[R]"],
    *,
    timeout: float | timedelta | None = None,
    return_when: str = asyncio.FIRST_COMPLETED,
) -> tuple[list["asyncio.Future[R]"], list["asyncio.Future[R]"]]:
    """`asyncio.wait`, with the done and the pending ones in the order in which they were given."""
    limit = None if timeout is None else _seconds(timeout)
    done, _ = await asyncio.wait(awaitables, timeout=limit, return_when=return_when)
    finished = [item for item in awaitables if item in done]
    return finished, [item for item in awaitables if item not in done]


def as_completed(
    awaitables: Sequence[Awaitable[R]], *, timeout: float | timedelta | None = None
) -> Iterator[Awaitable[R]]:
    """`asyncio.as_completed`, which by itself begins coroutines in an order that replay does not
    repeat.
    """
    limit = None if timeout is None else _seconds(timeout)
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    return asyncio.as_completed(tasks, timeout=limit)


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)
