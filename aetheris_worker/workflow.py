"""What workflow code uses: the decorators, and what a run may ask for.

Workflow code must be deterministic: the same history must lead it to the same commands. So it takes
time, chance and the results of the outside world from here; the usual asyncio tools (sleep, gather,
wait_for, timeout, Event, Lock, Queue, TaskGroup) work on the run's own event loop.
"""

import asyncio
import inspect
import logging
import random as _random
import uuid as _uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, TypeVar, TypeVarTuple, Unpack, cast, overload

from aetheris_client.definition import (
    QUERY_DEFINITION,
    SIGNAL_DEFINITION,
    WORKFLOW_RUN,
)
from aetheris_client.options import check_names
from aetheris_client.signatures import signature_of
from aetheris_worker.retry import RetryPolicy
from aetheris_worker.runtime import guard as _guard
from aetheris_worker.runtime import info as _info
from aetheris_worker.runtime.activity import (
    ActivityCancellationType,
    ActivityHandle,
    ActivityOptions,
)
from aetheris_worker.runtime.definitions import (
    ActivityDefinition,
    HandlerDefinition,
    HandlerUnfinishedPolicy,
    WorkflowDefinition,
)
from aetheris_worker.runtime.errors import NondeterminismError
from aetheris_worker.runtime.info import ParentInfo, WorkflowInfo
from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.run import WorkflowRun
from aetheris_worker.runtime.signals import SignalHandler

__all__ = [
    "ActivityCancellationType",
    "ActivityHandle",
    "HandlerUnfinishedPolicy",
    "NondeterminismError",
    "NotInWorkflowError",
    "ParentInfo",
    "RetryPolicy",
    "StartActivityOptions",
    "WorkflowInfo",
    "all_handlers_finished",
    "as_completed",
    "defn",
    "execute_activity",
    "execute_activity_method",
    "history_length",
    "in_workflow",
    "info",
    "is_cancel_requested",
    "is_continue_as_new_suggested",
    "logger",
    "now",
    "query",
    "random",
    "run",
    "set_dynamic_signal_handler",
    "set_signal_handler",
    "signal",
    "sleep",
    "start_activity",
    "start_activity_method",
    "time",
    "time_ns",
    "unsafe",
    "uuid4",
    "wait",
    "wait_condition",
]

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
R = TypeVar("R")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
Ts = TypeVarTuple("Ts")


class NotInWorkflowError(RuntimeError):
    """A function of this module was called outside of workflow code."""


# Decorators.


@overload
def defn(cls: C) -> C: ...
@overload
def defn(
    *,
    name: str | None = None,
    failure_exception_types: Sequence[type[BaseException]] = (),
) -> Callable[[C], C]: ...
def defn(
    cls: type | None = None,
    *,
    name: str | None = None,
    failure_exception_types: Sequence[type[BaseException]] = (),
) -> Any:
    """Make a class a workflow: it has one `run` method, and signal and query handlers.

    All of them may be inherited. A subclass is a workflow only under a decorator of its own. An
    override of a handler is the handler of the same name, decorated or not; an override of the run
    method must be decorated.

    Args:
        cls: The class; its constructor is called without arguments.
        name: Its workflow type; the class's name where None.
        failure_exception_types: Exceptions that fail the run, as errors of `aetheris_client.errors`
            do. Any other exception fails only the workflow task, which is tried again: so a
            mistake in the code can be repaired while runs wait.

    Raises:
        ValueError: There is not exactly one run method; two handlers have one name; or an override
            is not what it overrides.
    """

    def decorate(cls: type) -> type:
        WorkflowDefinition.read(cls, name, failure_exception_types)
        return cls

    return decorate if cls is None else decorate(cls)


def run(function: F) -> F:
    """Make an async method the one that is the workflow."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{function!r}: @workflow.run expects an async method")
    setattr(function, WORKFLOW_RUN, True)
    return function


@overload
def signal(function: F) -> F: ...
@overload
def signal(
    *,
    name: str | None = None,
    dynamic: bool = False,
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON,
) -> Callable[[F], F]: ...
def signal(
    function: Any = None,
    *,
    name: str | None = None,
    dynamic: bool = False,
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON,
) -> Any:
    """Make a method, async or not, the handler of a signal; called once for each, in order.

    Signals that came before the run's code began are handled before its run method begins. One that
    no handler takes stays queued until `set_signal_handler` sets one, or newer code has one.

    Args:
        function: What to decorate.
        name: The signal; the method's name where None.
        dynamic: It takes the signals that have no handler of their own: it is called with the
            signal's name and the list of its arguments, decoded without type hints.
        unfinished_policy: What is said when the run ends while an async handler is still at work.
    """
    if dynamic and name is not None:
        raise ValueError(f"name: {name!r}, expected none for a dynamic handler")
    return _handler(SIGNAL_DEFINITION, function, name, dynamic, unfinished_policy)


@overload
def query(function: F) -> F: ...
@overload
def query(*, name: str | None = None) -> Callable[[F], F]: ...
def query(function: Any = None, *, name: str | None = None) -> Any:
    """Make a method the handler of a query. It only looks: it may not change or await anything."""

    def decorate(function: Callable[..., object]) -> object:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r}: @workflow.query expects a method that is not async")
        return _handler(QUERY_DEFINITION, function, name)

    return decorate if function is None else decorate(function)


def _handler(
    attribute: str,
    function: Any,
    name: str | None,
    is_dynamic: bool = False,
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON,
) -> Any:
    def decorate(function: Callable[..., object]) -> object:
        if not inspect.isfunction(function):
            raise TypeError(f"{function!r}: a handler is a method; put this decorator innermost")
        own_name = "" if is_dynamic else name or function.__name__
        setattr(function, attribute, HandlerDefinition(own_name, function, unfinished_policy))
        return function

    return decorate if function is None else decorate(function)


def set_signal_handler(name: str, handler: Callable[..., object] | None) -> None:
    """Handle the signals of a name by this function, async or not, from now on; None: by none.

    It gets at once, in order, the signals of the name that wait for a handler.
    """
    box = _current_run("set_signal_handler").signals
    box.set_handler(name, None if handler is None else SignalHandler(handler))


def set_dynamic_signal_handler(
    handler: Callable[[str, list[Any]], object] | None,
) -> None:
    """The same for all signals that have no handler of their own; see `signal(dynamic=True)`."""
    box = _current_run("set_dynamic_signal_handler").signals
    box.set_handler(None, None if handler is None else SignalHandler(handler, is_dynamic=True))


def all_handlers_finished() -> bool:
    """Whether no async signal handler is at work; for `wait_condition` at the end of a run."""
    return _current_run("all_handlers_finished").signals.all_finished


# Activities.


class StartActivityOptions(TypedDict, total=False):
    """How an activity is run.

    activity_id: Unique among the run's open activities; a number where absent.
    task_queue: Where its workers poll; the run's own queue where absent.
    schedule_to_close_timeout: Limit on all attempts together.
    schedule_to_start_timeout: Limit on the wait for a worker.
    start_to_close_timeout: Limit on one attempt.
    heartbeat_timeout: Limit on the worker's silence.
    retry_policy: How failures are tried again; the server's default where absent.
    cancellation_type: What becomes of it when the code cancels it; TRY_CANCEL where absent.
    capabilities: What its worker must be able to do.
    at_most_once: Never run an attempt twice. An attempt that a worker may have had, and that is
        lost, ends with a TimeoutError whose outcome is unknown; unless retry_policy says otherwise,
        there is no second one.
    """

    activity_id: str | None
    task_queue: str | None
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    cancellation_type: ActivityCancellationType
    capabilities: Sequence[str]
    at_most_once: bool


# The overloads for one to four arguments say no more than the one for any number, but type checkers
# read a literal (`[1]`, `{"a": 1}`) as its parameter's type only where that has a type variable of
# its own.


@overload
async def execute_activity(
    activity: Callable[[A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity(
    activity: Callable[[A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity(
    activity: Callable[[A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity(
    activity: Callable[[A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity(
    activity: Callable[[Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity(
    activity: str,
    *arguments: Any,
    result_type: type[R],
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity(
    activity: str,
    *arguments: Any,
    result_type: object = None,
    args: Sequence[Any] = ...,
    **options: Unpack[StartActivityOptions],
) -> Any: ...
async def execute_activity(activity: Any, *arguments: Any, **options: Any) -> Any:
    """Run an activity and wait for its result; see `start_activity`.

    Raises:
        ActivityError: It did not complete; the cause says why (CancelledError, TimeoutError,
            ApplicationError).
        asyncio.CancelledError: The code itself cancelled it, or the task that waits; an
            `asyncio.timeout` makes TimeoutError of it.
    """
    return await _start_activity(activity, arguments, **options)


@overload
async def execute_activity_method(
    activity: Callable[[Any, A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity_method(
    activity: Callable[[Any, A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity_method(
    activity: Callable[[Any, A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity_method(
    activity: Callable[[Any, A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity_method(
    activity: Callable[[Any, Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartActivityOptions],
) -> R: ...
@overload
async def execute_activity_method(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartActivityOptions],
) -> R: ...
async def execute_activity_method(activity: Any, *arguments: Any, **options: Any) -> Any:
    """`execute_activity` for `Class.method`, a method without its `self`, which the worker has."""
    return await _start_activity(activity, arguments, **options)


@overload
def start_activity(
    activity: Callable[[A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: Callable[[A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: Callable[[A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: Callable[[A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: Callable[[Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: str,
    *arguments: Any,
    result_type: type[R],
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity(
    activity: str,
    *arguments: Any,
    result_type: object = None,
    args: Sequence[Any] = ...,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[Any]: ...
def start_activity(activity: Any, *arguments: Any, **options: Any) -> ActivityHandle[Any]:
    """Schedule an activity, without waiting.

    Args:
        activity: A function under @activity.defn, or a name.
        arguments: What to call it with; or all of them as the option `args`, which no type checker
            looks into.
        options: See StartActivityOptions; one of start_to_close_timeout and
            schedule_to_close_timeout is needed. `result_type` is a hint for the result of an
            activity that is given by name.

    Returns:
        Its handle: await it for the result, `cancel()` it.

    Raises:
        ValueError: Neither timeout is set, or one is out of range.
        TypeError: An option is unknown.
        PayloadEncodeError: An argument has no encoding.
    """
    return _start_activity(activity, arguments, **options)


@overload
def start_activity_method(
    activity: Callable[[Any, A1], Awaitable[R] | R],
    a1: A1,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity_method(
    activity: Callable[[Any, A1, A2], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity_method(
    activity: Callable[[Any, A1, A2, A3], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity_method(
    activity: Callable[[Any, A1, A2, A3, A4], Awaitable[R] | R],
    a1: A1,
    a2: A2,
    a3: A3,
    a4: A4,
    /,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity_method(
    activity: Callable[[Any, Unpack[Ts]], Awaitable[R] | R],
    *arguments: *Ts,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
@overload
def start_activity_method(
    activity: Callable[..., Awaitable[R] | R],
    *,
    args: Sequence[Any],
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[R]: ...
def start_activity_method(activity: Any, *arguments: Any, **options: Any) -> ActivityHandle[Any]:
    """`start_activity` for `Class.method`, a method without its `self`, which the worker has."""
    return _start_activity(activity, arguments, **options)


def _start_activity(
    activity: str | Callable[..., object],
    arguments: tuple[Any, ...],
    *,
    args: Sequence[Any] | None = None,
    result_type: object = None,
    **options: Unpack[StartActivityOptions],
) -> ActivityHandle[Any]:
    run = _current_run("start_activity")
    if args is not None:
        if arguments:
            raise TypeError("arguments: expected only one of *arguments and args")
        arguments = tuple(args)
    if options.keys() - _ACTIVITY_OPTIONS:
        check_names("activity", options, _ACTIVITY_OPTIONS, required=())
    argument_types: Sequence[object] = ()
    if isinstance(activity, str):
        name = activity
    else:
        name = ActivityDefinition.of(activity).name
        signature = signature_of(activity)
        argument_types = signature.types_of(len(arguments))
        if result_type is None:
            result_type = signature.result_type
    take = options.get
    at_most_once = take("at_most_once", False)
    retry_policy = take("retry_policy")
    if at_most_once and retry_policy is None:
        retry_policy = _ONE_ATTEMPT
    how = ActivityOptions(
        task_queue=take("task_queue") or run.task_queue,
        schedule_to_close_timeout=take("schedule_to_close_timeout"),
        schedule_to_start_timeout=take("schedule_to_start_timeout"),
        start_to_close_timeout=take("start_to_close_timeout"),
        heartbeat_timeout=take("heartbeat_timeout"),
        retry_policy=retry_policy,
        cancellation_type=take("cancellation_type", ActivityCancellationType.TRY_CANCEL),
        capabilities=take("capabilities", ()),
        at_most_once=at_most_once,
    )
    return run.schedule_activity(
        name, arguments, how, take("activity_id"), argument_types, result_type
    )


_ACTIVITY_OPTIONS: Final = StartActivityOptions.__optional_keys__
_ONE_ATTEMPT: Final = RetryPolicy(maximum_attempts=1)


# Waiting.


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
    await _current_run("wait_condition").wait_condition(predicate, limit)


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


# What the run knows.


def in_workflow() -> bool:
    """Whether the caller is workflow code."""
    return _try_current_run() is not None


def info() -> WorkflowInfo:
    """What the run was started with."""
    return _current_run("info").info


def now() -> datetime:
    """The time at which the current workflow task began, in UTC; stands still while code runs."""
    return _info.to_datetime(_current_run("now").loop.now)


def time() -> float:
    """`now` in seconds since the epoch."""
    return _current_run("time").loop.now


def time_ns() -> int:
    """`now` in nanoseconds since the epoch, of which it has whole microseconds."""
    return round(_current_run("time_ns").loop.now * 1_000_000) * 1_000


def random() -> _random.Random:
    """Random numbers that replay repeats, seeded with the run id; not for secrets."""
    return _current_run("random").random()


def uuid4() -> _uuid.UUID:
    """A UUID that replay repeats; not for secrets."""
    return _current_run("uuid4").uuid4()


def history_length() -> int:
    """Events in the run's history, as of the current workflow task."""
    return _current_run("history_length").history_length


def is_continue_as_new_suggested() -> bool:
    """Whether the server finds the history so long that the run had better start afresh."""
    return _current_run("is_continue_as_new_suggested").suggests_continue_as_new


def is_cancel_requested() -> bool:
    """Whether somebody has asked the run to cancel."""
    return _current_run("is_cancel_requested").cancel_requested


class _Unsafe:
    """What most workflow code has no business to know."""

    @staticmethod
    def is_replaying() -> bool:
        """Whether the code repeats what it did before. Deciding anything by it breaks replay."""
        return _current_run("unsafe.is_replaying").is_replaying

    @staticmethod
    def sandbox_unrestricted() -> AbstractContextManager[None]:
        """Free a `with` block from what workflow code may not call (clocks, chance). What comes of
        it must not matter to the run: replay gives other values.
        """
        return _guard.unrestricted()


unsafe: Final = _Unsafe()


class _WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs once what replay repeats, and says which run it is."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the base class's name
        run = _try_current_run()
        if run is not None and run.is_replaying:
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        run = _try_current_run()
        if run is not None:
            extra = {
                "namespace": run.id.namespace,
                "workflow_id": run.id.workflow_id,
                "run_id": run.id.run_id,
                "workflow_type": run.info.workflow_type,
            }
            kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return msg, kwargs


logger: Final = _WorkflowLogger(logging.getLogger("aetheris.workflow"), {})
"""A logger that is silent while the code repeats what it did before."""


def _seconds(duration: float | timedelta) -> float:
    return duration.total_seconds() if isinstance(duration, timedelta) else float(duration)


def _try_current_run() -> WorkflowRun | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return cast(WorkflowRun, loop.owner) if isinstance(loop, WorkflowLoop) else None


def _current_run(call: str) -> WorkflowRun:
    run = _try_current_run()
    if run is None:
        raise NotInWorkflowError(f"workflow.{call} was called outside of workflow code")
    return run
