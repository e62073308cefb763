"""What the decorators find out about workflow code and activities."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

from aetheris_client.definition import (
    QUERY_DEFINITION,
    SIGNAL_DEFINITION,
    WORKFLOW_DEFINITION,
    WORKFLOW_RUN,
)

ACTIVITY_DEFINITION: Final = "__aetheris_activity_definition__"

Function = Callable[..., object]


@dataclass(frozen=True, slots=True)
class HandlerDefinition:
    """A signal or query handler: its name and the method as the class has it."""

    name: str
    method: Function


@dataclass(frozen=True, slots=True)
class WorkflowDefinition:
    """A workflow class. `failure_types` are exceptions that fail the run, not just the task."""

    name: str
    cls: type
    run: Function
    signals: Mapping[str, HandlerDefinition]
    queries: Mapping[str, HandlerDefinition]
    failure_types: tuple[type[BaseException], ...]

    @staticmethod
    def read(
        workflow: type,
        name: str | None,
        failure_types: Sequence[type[BaseException]],
    ) -> "WorkflowDefinition":
        """Collect the decorated methods of a class, inherited ones included.

        Raises:
            ValueError: There is not exactly one run method, or two handlers have one name.
        """
        runs: list[Function] = []
        signals: dict[str, HandlerDefinition] = {}
        queries: dict[str, HandlerDefinition] = {}
        for _, member in inspect.getmembers(workflow, inspect.isfunction):
            if getattr(member, WORKFLOW_RUN, False):
                runs.append(member)
            for handlers, attribute in ((signals, SIGNAL_DEFINITION), (queries, QUERY_DEFINITION)):
                handler = cast(HandlerDefinition | None, getattr(member, attribute, None))
                if handler is None:
                    continue
                if handler.name in handlers:
                    raise ValueError(f"{workflow.__qualname__}: two handlers of {handler.name!r}")
                handlers[handler.name] = HandlerDefinition(handler.name, member)
        if len(runs) != 1:
            raise ValueError(
                f"{workflow.__qualname__}: found {len(runs)} @workflow.run methods, expected 1"
            )
        return WorkflowDefinition(
            name or workflow.__name__, workflow, runs[0], signals, queries, tuple(failure_types)
        )

    @staticmethod
    def of(workflow: type) -> "WorkflowDefinition":
        """The definition of a decorated class; TypeError for any other."""
        definition = cast(object, workflow.__dict__.get(WORKFLOW_DEFINITION))
        if isinstance(definition, WorkflowDefinition):
            return definition
        raise TypeError(f"{workflow!r} is not a workflow: expected a class under @workflow.defn")


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
            )
        called = function if inspect.isroutine(function) else type(function).__call__
        return ActivityDefinition(name, function, inspect.iscoroutinefunction(called))
