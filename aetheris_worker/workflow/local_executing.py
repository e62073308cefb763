"""Local activities that code starts and waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload

from aetheris_worker.workflow.local_activity_options import (
    StartLocalActivityOptions,
    schedule_local_activity,
)

R = TypeVar("R")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
Ts = TypeVarTuple("Ts")

# Why there are overloads for one to four arguments: see `starting`.


@overload
async def execute_local_activity(
    activity: Callable[[A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity(
    activity: Callable[[A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity(
    activity: Callable[[A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity(
    activity: Callable[[A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity(
    activity: Callable[[Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity(
    activity: str,
    *arguments: Any,
    result_type: type[R],
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity(
    activity: str,
    *arguments: Any,
    result_type: object = None,
    args: Sequence[Any] = ...,
    **options: Unpack[StartLocalActivityOptions],
) -> Any: ...
async def execute_local_activity(activity: Any, *arguments: Any, **options: Any) -> Any:
    """Run a local activity and wait for its result; see `start_local_activity`.

    Raises:
        ActivityError: It did not complete; the cause says why (CancelledError, TimeoutError,
            ApplicationError).
        asyncio.CancelledError: The code itself cancelled it, or the task that waits; an
            `asyncio.timeout` makes TimeoutError of it.
    """
    return await schedule_local_activity(activity, arguments, **options)


@overload
async def execute_local_activity_method(
    activity: Callable[[Any, A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity_method(
    activity: Callable[[Any, A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity_method(
    activity: Callable[[Any, A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity_method(
    activity: Callable[[Any, A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity_method(
    activity: Callable[[Any, Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
@overload
async def execute_local_activity_method(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartLocalActivityOptions],
) -> R: ...
async def execute_local_activity_method(activity: Any, *arguments: Any, **options: Any) -> Any:
    """`execute_local_activity` for `Class.method`, without its `self`, which the worker has."""
    return await schedule_local_activity(activity, arguments, **options)
