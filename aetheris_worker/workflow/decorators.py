"""The decorators that make a class a workflow, and its methods the run and its handlers."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, Protocol, TypeVar, cast, overload

from aetheris_client.definition import (
    QUERY_DEFINITION,
    SIGNAL_DEFINITION,
    UPDATE_DEFINITION,
    WORKFLOW_RUN,
)
from aetheris_client.options import check_options
from aetheris_worker.runtime.definitions import (
    HandlerDefinition,
    HandlerUnfinishedPolicy,
    WorkflowDefinition,
)

C = TypeVar("C", bound=type)
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)


@overload
def defn(cls: C) -> C: ...
@overload
def defn(
    *,
    name: str | None = None,
    failure_exception_types: Sequence[type[BaseException]] = (),
    waits_for_handlers: bool = False,
    version: str | None = None,
) -> Callable[[C], C]: ...
def defn(
    cls: type | None = None,
    *,
    name: str | None = None,
    failure_exception_types: Sequence[type[BaseException]] = (),
    waits_for_handlers: bool = False,
    version: str | None = None,
) -> Any:
    """Make a class a workflow: it has one `run` method, and signal, query and update handlers.

    All of them may be inherited. A subclass is a workflow only under a decorator of its own. An
    override of a handler is the handler of the same name, decorated or not; an override of the run
    method must be decorated.

    Args:
        cls: The class; its constructor is called without arguments.
        name: Its workflow type; the class's name where None.
        failure_exception_types: Exceptions that fail the run, as errors of `aetheris_client.errors`
            do. Any other exception fails only the workflow task, which is tried again: so a
            mistake in the code can be repaired while runs wait.
        waits_for_handlers: When the run method has ended, however, the run goes on until its async
            handlers have ended as well; its result is encoded then. A request to cancel that comes
            meanwhile ends it as cancelled. Without it, handlers are abandoned where they are, and a
            warning names them (`HandlerUnfinishedPolicy`).
        version: Of its code, recorded with each workflow task that it completes, for people: `v2`,
            `2026-11`. It decides nothing; see `patched` for code that differs by run.

    Raises:
        ValueError: There is not exactly one run method; two handlers have one name; or an override
            is not what it overrides.
    """

    def decorate(cls: type) -> type:
        check_options("workflow.defn", version=version)
        WorkflowDefinition.read(
            cls,
            name,
            failure_exception_types,
            waits_for_handlers=waits_for_handlers,
            version=version or "",
        )
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
def query(*, name: str | None = None, dynamic: bool = False) -> Callable[[F], F]: ...
def query(function: Any = None, *, name: str | None = None, dynamic: bool = False) -> Any:
    """Make a method the handler of a query. It only looks: it may not change or await anything.

    Args:
        function: What to decorate.
        name: The query; the method's name where None. Those that begin with `__` are the worker's
            own, such as `__stack_trace`.
        dynamic: It takes the queries that have no handler of their own: it is called with the
            query's name and the list of its arguments, decoded without type hints.
    """
    if dynamic and name is not None:
        raise ValueError(f"name: {name!r}, expected none for a dynamic handler")

    def decorate(function: Callable[..., object]) -> object:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function!r}: @workflow.query expects a method that is not async")
        if (name or function.__name__).startswith("__") and not dynamic:
            raise ValueError(f"{function!r}: names of queries that begin with __ are the worker's")
        return _handler(QUERY_DEFINITION, function, name, dynamic)

    return decorate if function is None else decorate(function)


class UpdateMethod(Protocol[P, R_co]):
    """What `update` makes of a method: the same, with a decorator for its validator.

    Attributes:
        validator: Makes a method the one that judges the update before its handler is called. It is
            called with the update's arguments, is not async, and only looks. Whatever it raises
            rejects the update: its caller gets that, and the history nothing.
    """

    validator: Callable[[Callable[P, None]], Callable[P, None]]

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


@overload
def update(function: Callable[P, R_co]) -> UpdateMethod[P, R_co]: ...
@overload
def update(
    *,
    name: str | None = None,
    dynamic: bool = False,
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON,
    description: str = "",
) -> Callable[[Callable[P, R_co]], UpdateMethod[P, R_co]]: ...
def update(
    function: Any = None,
    *,
    name: str | None = None,
    dynamic: bool = False,
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON,
    description: str = "",
) -> Any:
    """Make a method, async or not, the handler of an update: a request that has an outcome.

    What it returns is the outcome. An error that would fail the run fails the update alone; any
    other fails the workflow task, which is tried again. A method under `@handler.validator` may
    reject an update before the handler is called.

    Args:
        function: What to decorate.
        name: The update; the method's name where None.
        dynamic: It takes the updates that have no handler of their own: it is called with the
            update's name and the list of its arguments, decoded without type hints.
        unfinished_policy: What is said when the run ends while an async handler is still at work.
        description: For people.
    """
    if dynamic and name is not None:
        raise ValueError(f"name: {name!r}, expected none for a dynamic handler")

    def decorate(function: Callable[..., object]) -> object:
        _handler(UPDATE_DEFINITION, function, name, dynamic, unfinished_policy, description)
        cast(Any, function).validator = functools.partial(_set_validator, function)
        return function

    return decorate if function is None else decorate(function)


def _set_validator(handler: Callable[..., object], validator: Any) -> Any:
    if not inspect.isfunction(validator) or inspect.iscoroutinefunction(validator):
        raise TypeError(f"{validator!r}: a validator is a method that is not async")
    definition = getattr(handler, UPDATE_DEFINITION)
    setattr(handler, UPDATE_DEFINITION, replace(definition, validator=validator))
    return validator


def _handler(
    attribute: str,
    function: Any,
    name: str | None,
    is_dynamic: bool = False,
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON,
    description: str = "",
) -> Any:
    def decorate(function: Callable[..., object]) -> object:
        if not inspect.isfunction(function):
            raise TypeError(f"{function!r}: a handler is a method; put this decorator innermost")
        own_name = "" if is_dynamic else name or function.__name__
        definition = HandlerDefinition(
            own_name, function, unfinished_policy, description=description
        )
        setattr(function, attribute, definition)
        return function

    return decorate if function is None else decorate(function)
