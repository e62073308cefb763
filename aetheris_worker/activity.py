"""What activity code uses: the decorator, and what an attempt may know and say."""

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any, Final, NoReturn, TypeVar, overload

from aetheris_client.errors import ApplicationError
from aetheris_worker.activities.attempt import (
    CURRENT,
    Attempt,
    CancellationDetails,
    CancelReason,
)
from aetheris_worker.activities.calls import CompleteAsyncError
from aetheris_worker.activities.info import ActivityInfo
from aetheris_worker.runtime.definitions import ACTIVITY_DEFINITION

__all__ = [
    "ActivityInfo",
    "CancelReason",
    "CancellationDetails",
    "NotInActivityError",
    "cancel_reason",
    "cancellation_details",
    "defn",
    "heartbeat",
    "in_activity",
    "info",
    "is_cancelled",
    "logger",
    "raise_complete_async",
    "wait_for_cancelled",
    "wait_for_cancelled_sync",
]

F = TypeVar("F", bound=Callable[..., Any])


class NotInActivityError(RuntimeError):
    """A function of this module was called outside of activity code."""


@overload
def defn(function: F) -> F: ...
@overload
def defn(*, name: str | None = None) -> Callable[[F], F]: ...
def defn(function: Any = None, *, name: str | None = None) -> Any:
    """Make a function, a method, or a class with `__call__`, an activity.

    An async one runs on the worker's event loop and must not block it; any other in a thread.

    Args:
        function: What to decorate.
        name: Its activity type; the function's name where None.
    """

    def decorate(function: Any) -> Any:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError(f"{function!r}: @activity.defn expects a function that does not yield")
        known_as = name or getattr(function, "__name__", None)
        if known_as is None:
            raise TypeError(f"{function!r} has no name of its own: write @activity.defn(name=...)")
        setattr(function, ACTIVITY_DEFINITION, known_as)
        return function

    return decorate if function is None else decorate(function)


def in_activity() -> bool:
    """Whether the caller is activity code."""
    return CURRENT.get(None) is not None


def info() -> ActivityInfo:
    """What the attempt was started with."""
    return _current("info").info


def heartbeat(*details: Any) -> None:
    """Say that the attempt is alive, and how far it is.

    Call it as often as you like: only as many go to the server as it needs. The next attempt finds
    the newest details in its `info().heartbeat_details`.

    Raises:
        CancelledError: The attempt should stop, and its code is not async: that of
            `aetheris_client.errors` (async code is cancelled as asyncio cancels).
    """
    _current("heartbeat").heartbeat(details)


def raise_complete_async() -> NoReturn:
    """End here, without an answer: somebody else gives it, with `Client.get_async_activity_handle`,
    by this attempt's `info().task_token` or by the activity's id.

    The worker lets go of the attempt. Its timeouts go on at the server, so whoever goes on with it
    sends the heartbeats, too.

    Raises:
        ApplicationError: The activity is local: the server knows nothing of it.
        BaseException: That ends the attempt. Do not catch it.
    """
    if _current("raise_complete_async").is_local:
        raise ApplicationError(
            "a local activity cannot be completed from elsewhere",
            type="LocalActivity",
            non_retryable=True,
        )
    raise CompleteAsyncError


def is_cancelled() -> bool:
    """Whether the attempt should stop."""
    return _current("is_cancelled").cancel_reason is not None


def cancel_reason() -> CancelReason | None:
    """Why it should; None while it should go on."""
    return _current("cancel_reason").cancel_reason


def cancellation_details() -> CancellationDetails | None:
    """All that is known of why it should; None while it should go on."""
    return _current("cancellation_details").cancellation_details()


async def wait_for_cancelled() -> None:
    """Return once the attempt should stop; for async code that shields its work from asyncio's
    cancellation.
    """
    attempt = _current("wait_for_cancelled")
    cancelled = asyncio.Event()
    attempt.on_cancel(cancelled.set)
    await cancelled.wait()


def wait_for_cancelled_sync(timeout: float | None = None) -> bool:
    """Block a thread until the attempt should stop, at most so many seconds; whether it should."""
    attempt = _current("wait_for_cancelled_sync")
    cancelled = threading.Event()
    attempt.on_cancel(cancelled.set)
    return cancelled.wait(timeout)


class _ActivityLogger(logging.LoggerAdapter[logging.Logger]):
    """Says which attempt logs."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        attempt = CURRENT.get(None)
        if attempt is not None:
            task = attempt.task
            extra = {
                "workflow_id": task.workflow_execution.workflow_id,
                "run_id": task.workflow_execution.run_id,
                "activity_id": task.activity_id,
                "activity_type": task.activity_type.name,
                "attempt": task.attempt,
            }
            kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return msg, kwargs


logger: Final = _ActivityLogger(logging.getLogger("aetheris.activity"), {})
"""A logger that says which attempt logs."""


def _current(call: str) -> Attempt:
    attempt = CURRENT.get(None)
    if attempt is None:
        raise NotInActivityError(f"activity.{call} was called outside of activity code")
    return attempt
