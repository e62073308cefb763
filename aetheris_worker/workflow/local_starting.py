"""Local activities that code starts, to wait for them later."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, TypeVarTuple, Unpack, overload

from aetheris_worker.runtime.machines.activity import ActivityHandle
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
def start_local_activity(
    activity: Callable[[A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity(
    activity: Callable[[A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity(
    activity: Callable[[A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity(
    activity: Callable[[A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity(
    activity: Callable[[Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity(
    activity: str,
    *arguments: Any,
    result_type: type[R],
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity(
    activity: str,
    *arguments: Any,
    result_type: object = None,
    args: Sequence[Any] = ...,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[Any]: ...
def start_local_activity(activity: Any, *arguments: Any, **options: Any) -> ActivityHandle[Any]:
    """Schedule an activity, without waiting.

    Args:
        activity: A function under @activity.defn, or a name.
        arguments: What to call it with; or all of them as the option `args`, which no type checker
            looks into.
        options: See StartLocalActivityOptions; one of start_to_close_timeout and
            schedule_to_close_timeout is needed. `result_type` is a hint for the result of an
            activity that is given by name.

    Returns:
        Its handle: await it for the result, `cancel()` it.

    Raises:
        ValueError: Neither timeout is set, or one is out of range.
        TypeError: An option is unknown.
        PayloadEncodeError: An argument has no encoding.
    """
    return schedule_local_activity(activity, arguments, **options)


@overload
def start_local_activity_method(
    activity: Callable[[Any, A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity_method(
    activity: Callable[[Any, A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity_method(
    activity: Callable[[Any, A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity_method(
    activity: Callable[[Any, A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity_method(
    activity: Callable[[Any, Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_local_activity_method(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartLocalActivityOptions],
) -> ActivityHandle[R]: ...
def start_local_activity_method(
    activity: Any, *arguments: Any, **options: Any
) -> ActivityHandle[Any]:
    """`start_local_activity` for `Class.method`, without its `self`, which the worker has."""
    return schedule_local_activity(activity, arguments, **options)
