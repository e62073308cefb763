"""What a worker can run, by name."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from aetheris_client.signatures import signature_of
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.definitions import ActivityDefinition, WorkflowDefinition


def workflows_by_name(workflows: Sequence[type]) -> Mapping[str, WorkflowDefinition]:
    """The definitions of decorated classes.

    Raises:
        TypeError: A class has no decorator of its own, or cannot be made without arguments.
        ValueError: Two have one name.
    """
    definitions: dict[str, WorkflowDefinition] = {}
    for workflow in workflows:
        definition = WorkflowDefinition.of(workflow)
        _check_constructor(workflow)
        other = definitions.get(definition.name)
        if other is not None:
            raise ValueError(
                f"two workflows have the name {definition.name!r}: "
                f"{other.cls.__qualname__} and {workflow.__qualname__}"
            )
        definitions[definition.name] = definition
        handlers = (*definition.signals.values(), *definition.queries.values())
        _read_hints(definition.run, *(handler.method for handler in handlers))
    if definitions:
        guard.cover_aliases()
    return definitions


def activities_by_name(
    activities: Sequence[Callable[..., object]],
) -> Mapping[str, ActivityDefinition]:
    """The definitions of decorated functions, bound methods and objects.

    Raises:
        TypeError: One has no decorator, or needs an instance to be called.
        ValueError: Two have one name.
    """
    definitions: dict[str, ActivityDefinition] = {}
    for activity in activities:
        definition = ActivityDefinition.of(activity)
        _check_bound(activity)
        other = definitions.get(definition.name)
        if other is not None:
            raise ValueError(
                f"two activities have the name {definition.name!r}: "
                f"{other.function!r} and {activity!r}"
            )
        definitions[definition.name] = definition
        _read_hints(activity)
    return definitions


def _read_hints(*functions: Callable[..., object]) -> None:
    """Warn of hints that do not resolve now, rather than at the first task."""
    for function in functions:
        signature_of(function)


def _check_constructor(workflow: type) -> None:
    if inspect.isabstract(workflow):
        missing = sorted(cast(frozenset[str], getattr(workflow, "__abstractmethods__")))  # noqa: B009 - no stub has it
        raise TypeError(f"{workflow!r} is abstract: it lacks {', '.join(missing)}")
    try:
        parameters = inspect.signature(workflow).parameters.values()
    except ValueError:
        # A constructor that is not written in Python.
        return
    needed = [item.name for item in parameters if _is_required(item)]
    if needed:
        raise TypeError(
            f"{workflow!r}: its constructor is called without arguments, and needs "
            f"{', '.join(needed)}"
        )


def _is_required(parameter: inspect.Parameter) -> bool:
    return parameter.default is parameter.empty and parameter.kind not in (
        parameter.VAR_POSITIONAL,
        parameter.VAR_KEYWORD,
    )


def _check_bound(activity: Callable[..., object]) -> None:
    """Refuse what would be called without its `self`."""
    if isinstance(activity, type):
        raise TypeError(f"{activity!r} is a class: register an instance of it")
    if inspect.isfunction(activity) and next(iter(inspect.signature(activity).parameters), "") == (
        "self"
    ):
        raise TypeError(f"{activity.__qualname__} is a method: register that of an instance")
