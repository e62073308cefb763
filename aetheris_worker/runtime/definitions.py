"""What the decorators find out about workflow code and activities.

A workflow's definition belongs to its class alone: what a class inherits is looked up along its
bases when it is decorated, and nothing of it is shared with other classes. An override keeps the
part that the method plays in the base, or is refused with the names of both.
"""

import enum
import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, cast

from aetheris_client.definition import (
    QUERY_DEFINITION,
    SIGNAL_DEFINITION,
    UPDATE_DEFINITION,
    WORKFLOW_DEFINITION,
    WORKFLOW_RUN,
)

ACTIVITY_DEFINITION: Final = "__aetheris_activity_definition__"

Function = Callable[..., object]


class HandlerUnfinishedPolicy(enum.Enum):
    """What is said when a run ends while an async handler of it is still at work."""

    WARN_AND_ABANDON = enum.auto()
    """A warning names the handlers."""
    ABANDON = enum.auto()
    """Nothing: that is meant."""


@dataclass(frozen=True, slots=True)
class HandlerDefinition:
    """A signal, query or update handler: its name and the method as the class has it.

    Attributes:
        name: Empty for a dynamic handler, which takes what has no handler of its own.
        validator: Of an update: the method that may reject it; None for none.
        description: For people.
    """

    name: str
    method: Function
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON
    validator: Function | None = None
    description: str = ""


def _no_handlers() -> Mapping[str, HandlerDefinition]:
    return {}


@dataclass(frozen=True, slots=True)
class WorkflowDefinition:
    """A workflow class.

    Attributes:
        failure_types: Exceptions that fail the run, not just the task.
        waits_for_handlers: The run ends only when its async handlers have.
        version: Of its code, for people; empty where it says none.
    """

    name: str
    cls: type
    run: Function
    signals: Mapping[str, HandlerDefinition]
    queries: Mapping[str, HandlerDefinition]
    failure_types: tuple[type[BaseException], ...]
    dynamic_signal: HandlerDefinition | None = None
    dynamic_query: HandlerDefinition | None = None
    waits_for_handlers: bool = False
    updates: Mapping[str, HandlerDefinition] = field(default_factory=_no_handlers)
    dynamic_update: HandlerDefinition | None = None
    version: str = ""

    @staticmethod
    def read(
        workflow: type,
        name: str | None,
        failure_types: Sequence[type[BaseException]],
        *,
        waits_for_handlers: bool = False,
        version: str = "",
    ) -> "WorkflowDefinition":
        """Collect the decorated methods of a class, inherited ones included, and put the definition
        on the class and on its run method.

        Undecorated overrides of handlers become handlers of the base's name. An inherited run
        method is copied into the class, so that `Class.run` names this workflow and no other.

        Raises:
            ValueError: There is not exactly one run method; two handlers have one name; or an
                override is not what it overrides.
        """
        runs: dict[str, Function] = {}
        signals: dict[str, HandlerDefinition] = {}
        queries: dict[str, HandlerDefinition] = {}
        updates: dict[str, HandlerDefinition] = {}
        handlers_of = {
            SIGNAL_DEFINITION: signals,
            QUERY_DEFINITION: queries,
            UPDATE_DEFINITION: updates,
        }
        for attribute, method, roles in _decorated_methods(workflow):
            for role in roles:
                if role.attribute == WORKFLOW_RUN:
                    runs[attribute] = method
                    continue
                _add_handler(workflow, handlers_of[role.attribute], role, method)
        if len(runs) != 1:
            names = ", ".join(run.__qualname__ for run in runs.values())
            raise ValueError(
                f"{workflow.__qualname__}: found {len(runs)} @workflow.run methods, expected 1"
                + (f": {names}" if names else "")
            )
        definition = WorkflowDefinition(
            name or workflow.__name__,
            workflow,
            _own_run_method(workflow, *runs.popitem()),
            {name: handler for name, handler in signals.items() if name},
            {name: handler for name, handler in queries.items() if name},
            tuple(failure_types),
            signals.get(""),
            queries.get(""),
            waits_for_handlers,
            {name: handler for name, handler in updates.items() if name},
            updates.get(""),
            version,
        )
        setattr(workflow, WORKFLOW_DEFINITION, definition)
        setattr(definition.run, WORKFLOW_DEFINITION, definition)
        return definition

    @staticmethod
    def of(workflow: type) -> "WorkflowDefinition":
        """The definition of a decorated class; TypeError for any other."""
        definition = cast(object, vars(workflow).get(WORKFLOW_DEFINITION))
        if isinstance(definition, WorkflowDefinition):
            if definition.cls is workflow:
                return definition
            raise TypeError(f"{workflow!r} was made anew: put @workflow.defn outermost")
        inherited = getattr(workflow, WORKFLOW_DEFINITION, None)
        base = (
            f" (its base {inherited.cls.__qualname__} is under one, which does not make it one)"
            if isinstance(inherited, WorkflowDefinition)
            else ""
        )
        raise TypeError(
            f"{workflow!r} is not a workflow: expected a class under @workflow.defn{base}"
        )


@dataclass(frozen=True, slots=True)
class ActivityDefinition:
    """An activity. The function may be bound, unbound, or an object with `__call__`."""

    name: str
    function: Function
    is_async: bool

    @staticmethod
    def of(function: Function) -> "ActivityDefinition":
        """The definition of a decorated function or method; TypeError for any other."""
        name = getattr(function, ACTIVITY_DEFINITION, None)
        if not isinstance(name, str):
            raise TypeError(
                f"{function!r} is not an activity: expected a function under @activity.defn"
                f"{_overridden_activity(function)}"
            )
        return ActivityDefinition(name, function, is_async(function))


def is_async(function: Function) -> bool:
    """Whether calling it makes a coroutine: also of a partial, and of an object with `__call__`."""
    called: object = function if inspect.isroutine(function) else type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


# The parts that methods of a class play.


_KINDS: Final = {
    SIGNAL_DEFINITION: "signal",
    QUERY_DEFINITION: "query",
    UPDATE_DEFINITION: "update",
}


@dataclass(frozen=True, slots=True)
class _Role:
    """What a decorator made of a method; `name` is empty for the run method and a dynamic handler.

    An override may have another policy, validator or description than what it overrides; where it
    is not decorated itself, it has those.
    """

    attribute: str
    name: str
    mark: object = field(compare=False)

    def definition(self, method: Function) -> HandlerDefinition:
        """The method in this part, which is that of a handler."""
        assert isinstance(self.mark, HandlerDefinition)
        return replace(self.mark, method=method)

    def __str__(self) -> str:
        match self.attribute:
            case str() if self.attribute == WORKFLOW_RUN:
                return "the @workflow.run method"
            case _:
                kind = _KINDS[self.attribute]
                if not self.name:
                    return f"the dynamic {kind} handler"
                return f"the handler of {kind} {self.name!r}"


@dataclass(frozen=True, slots=True)
class _Member:
    """An attribute as one class of the bases defines it."""

    owner: type
    name: str
    value: object

    def __str__(self) -> str:
        return f"{self.owner.__qualname__}.{self.name}"

    def roles(self) -> tuple[_Role, ...]:
        """What decorators made of it, also of one that something else has been put around."""
        value = self.value
        if isinstance(value, property):
            value = value.fget
        elif isinstance(value, (staticmethod, classmethod)):
            value = cast("staticmethod[..., object]", value).__func__
        marks = cast(Mapping[str, object], getattr(value, "__dict__", {}))
        return tuple(
            _Role(attribute, getattr(marks[attribute], "name", ""), marks[attribute])
            for attribute in (WORKFLOW_RUN, *_KINDS)
            if attribute in marks and not isinstance(value, type)
        )


def _decorated_methods(workflow: type) -> Iterator[tuple[str, Function, tuple[_Role, ...]]]:
    """The class's methods that play a part, by the decorators on them or on what they override;
    each with its attribute's name.
    """
    members: dict[str, list[_Member]] = {}
    for owner in workflow.__mro__:
        for name, value in vars(owner).items():
            members.setdefault(name, []).append(_Member(owner, name, value))
    for name, layers in sorted(members.items()):
        decorated = [(layer, roles) for layer in layers if (roles := layer.roles())]
        if not decorated:
            continue
        first, roles = decorated[0]
        for other, other_roles in decorated[1:]:
            if other_roles != roles:
                raise ValueError(
                    f"{workflow.__qualname__}: {first} is {_all(roles)}, and overrides {other}, "
                    f"{_all(other_roles)}: give both the same decorator, or {name!r} another name"
                )
        yield name, _method(layers[0], first, roles), roles


def _method(member: _Member, decorated: _Member, roles: tuple[_Role, ...]) -> Function:
    """The function that plays the part: the decorated one, or its override."""
    function = member.value
    if not inspect.isfunction(function):
        raise ValueError(
            f"{member}: expected a plain method, since {decorated} is {_all(roles)}; "
            f"found {type(function).__qualname__}"
        )
    if member is decorated:
        return function
    for role in roles:
        if role.attribute == WORKFLOW_RUN:
            raise ValueError(
                f"{member} overrides the @workflow.run method {decorated}: decorate it as well"
            )
        if role.attribute == QUERY_DEFINITION and inspect.iscoroutinefunction(function):
            raise ValueError(
                f"{member} is async, and overrides {decorated}, {role}, which may not be"
            )
        setattr(function, role.attribute, role.definition(function))
    return function


def _all(roles: tuple[_Role, ...]) -> str:
    return " and ".join(map(str, roles))


def _add_handler(
    workflow: type, handlers: dict[str, HandlerDefinition], role: _Role, method: Function
) -> None:
    other = handlers.get(role.name)
    if other is not None:
        kind = _KINDS[role.attribute]
        what = f"handlers of {role.name!r}" if role.name else f"dynamic {kind} handlers"
        raise ValueError(
            f"{workflow.__qualname__}: two {what}: "
            f"{other.method.__qualname__} and {method.__qualname__}"
        )
    handlers[role.name] = role.definition(method)


def _own_run_method(workflow: type, name: str, run: Function) -> Function:
    """The run method as a function of this class alone: one that other classes have too could not
    say which of them `Class.run` means.
    """
    if vars(workflow).get(name) is run and WORKFLOW_DEFINITION not in vars(run):
        return run
    found = cast(types.FunctionType, run)
    own = types.FunctionType(
        found.__code__, found.__globals__, found.__name__, found.__defaults__, found.__closure__
    )
    own.__kwdefaults__ = found.__kwdefaults__
    own.__annotations__ = found.__annotations__
    own.__doc__ = found.__doc__
    own.__module__ = found.__module__
    own.__qualname__ = f"{workflow.__qualname__}.{name}"
    vars(own).update(vars(found))
    setattr(workflow, name, own)
    return own


def _overridden_activity(function: object) -> str:
    """A hint for a method that overrides an activity and is none itself."""
    name = getattr(function, "__name__", "")
    for owner in type(getattr(function, "__self__", None)).__mro__:
        if isinstance(getattr(vars(owner).get(name), ACTIVITY_DEFINITION, None), str):
            return f", as {owner.__qualname__}.{name} is, which it overrides"
    return ""
