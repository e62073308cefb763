"""The one place in the tests that polls: everything else waits here, with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

T = TypeVar("T")

_POLL_INTERVAL = 0.01


async def wait_until(
    predicate: Callable[[], T | Awaitable[T]], timeout: float = 10.0, what: str = ""
) -> T:
    """Wait until the predicate gives something true, and return that.

    Args:
        predicate: Plain or async; called again and again.
        timeout: Seconds.
        what: Named in the failure; without it, the predicate's last value is.

    Raises:
        AssertionError: It was not true in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = predicate()
        value = await answer if isinstance(answer, Awaitable) else answer
        if value:
            return cast(T, value)
        if time.monotonic() >= deadline:
            raise AssertionError(
                f"waited {timeout} s for {what or predicate}; last value: {value!r}"
            )
        await asyncio.sleep(_POLL_INTERVAL)
