"""Calls activity code: whatever that does, it ends in a way that an answer can tell."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from aetheris_client.errors import ApplicationError
from aetheris_worker.runtime.entry import is_cancelled


class CompleteAsyncError(BaseException):
    """The activity goes on somewhere else, from where its answer will come. Not an Exception, so
    that its code does not swallow it.
    """


def call_plain(function: Callable[..., object], arguments: Sequence[object]) -> object:
    """Call a plain function, in a thread.

    Raises:
        Exception: What it raised.
        ApplicationError: It left a coroutine that nobody awaits; another attempt would as well.
        RuntimeError: It raised what would end the worker, or what no future can hold.
    """
    try:
        result = function(*arguments)
    except StopIteration as error:
        raise _stray(error) from error
    except (Exception, asyncio.CancelledError, CompleteAsyncError):
        raise
    except BaseException as error:
        raise _stray(error) from error
    if inspect.iscoroutine(result):
        result.close()
        raise ApplicationError(
            f"a plain function returned the coroutine {result.__qualname__}, which did not run: "
            "where a decorator wraps an async activity, its wrapper has to be `async def` and "
            "await it",
            type="CoroutineReturned",
            non_retryable=True,
        )
    return result


async def call_async(
    function: Callable[..., Coroutine[Any, Any, object]], arguments: Sequence[object]
) -> object:
    """Await an async function, on the event loop.

    Raises:
        Exception: What it raised.
        RuntimeError: It raised what would end the worker.
    """
    own_task = asyncio.current_task()
    try:
        return await function(*arguments)
    except (Exception, asyncio.CancelledError, CompleteAsyncError, KeyboardInterrupt):
        # The last is not the activity's: somebody pressed Ctrl-C.
        raise
    except BaseException as error:
        if isinstance(error, GeneratorExit) and _is_being_closed(own_task):
            raise
        if is_cancelled(error):
            raise asyncio.CancelledError from error
        raise _stray(error) from error


def _is_being_closed(own_task: "asyncio.Task[object] | None") -> bool:
    """Whether it is not the task that runs: its loop went away, and its coroutine is closed."""
    try:
        return asyncio.current_task() is not own_task
    except RuntimeError:
        return True


def _stray(error: BaseException) -> RuntimeError:
    return RuntimeError(f"the activity raised {type(error).__name__}")
