"""The queries of one run: who answers them.

That is a handler of the class, or one that the code has set; else the dynamic handler, if there is
one. Names that begin with `__` are the runtime's own: `BUILT_IN_QUERIES` answers those.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aetheris.api.v1.common_pb2 import Payloads
from aetheris_client.converter import DataConverter
from aetheris_client.signatures import signature_of
from aetheris_worker.runtime.definitions import Function, WorkflowDefinition
from aetheris_worker.runtime.parts import RunPart, RunScope

STACK_TRACE: Final = "__stack_trace"
METADATA: Final = "__workflow_metadata"
BUILT_IN_QUERIES: Final[Mapping[str, str]] = {
    STACK_TRACE: "Where each task of the run's code waits.",
    METADATA: "The run's handlers.",
}
"""What the runtime answers by itself, and what that is."""


class _Handler(Protocol):
    @property
    def function(self) -> Function: ...


def describe_handlers(
    definition: WorkflowDefinition,
    signals: Mapping[str, _Handler],
    queries: Mapping[str, _Handler],
    updates: Mapping[str, _Handler],
) -> Mapping[str, object]:
    """The answer to METADATA: the workflow's type, and for each handler its name and what the first
    line of its docstring says.
    """
    built_in = [{"name": name, "description": text} for name, text in BUILT_IN_QUERIES.items()]
    return {
        "type": definition.name,
        "signals": _described(signals),
        "queries": [*_described(queries), *built_in],
        "updates": _described(updates),
    }


def _described(handlers: Mapping[str, _Handler]) -> list[Mapping[str, str]]:
    return [
        {"name": name, "description": (handler.function.__doc__ or "").strip().split("\n")[0]}
        for name, handler in sorted(handlers.items())
    ]


@dataclass(frozen=True, slots=True)
class QueryHandler:
    """What is called for a query.

    Attributes:
        function: Called with `leading` and then the query's own arguments; a dynamic one with the
            query's name and the list of them.
        is_dynamic: It takes the queries that have no handler of their own.
    """

    function: Function
    leading: tuple[object, ...] = ()
    is_dynamic: bool = False

    @property
    def result_type(self) -> object:
        """What it says that it gives."""
        return signature_of(self.function).result_type

    def decode(self, name: str, arguments: Payloads, converter: DataConverter) -> Sequence[object]:
        """The arguments for the function; raises what the converter raises."""
        if self.is_dynamic:
            return (*self.leading, name, converter.from_payloads(arguments))
        types = signature_of(self.function).types_of(len(arguments.payloads))
        return (*self.leading, *converter.from_payloads(arguments, types))


class QueryBox(RunPart):
    """See the module."""

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self._handlers: dict[str, QueryHandler] = {}
        self._dynamic: QueryHandler | None = None

    @property
    def handlers(self) -> Mapping[str, QueryHandler]:
        """By name, without the dynamic one."""
        return self._handlers

    def bind(self, definition: WorkflowDefinition, instance: object) -> None:
        """Take the handlers of the class. Those that the instance's constructor has set stay."""
        for name, handler in definition.queries.items():
            self._handlers.setdefault(name, QueryHandler(handler.method, (instance,)))
        if definition.dynamic_query is not None and self._dynamic is None:
            method = definition.dynamic_query.method
            self._dynamic = QueryHandler(method, (instance,), is_dynamic=True)

    def set_handler(self, name: str | None, handler: QueryHandler | None) -> None:
        """From now on this one, or none, answers the queries of the name, or those of no other
        handler.
        """
        self.scope.loop.check_writable("setting a query handler")
        if name is None:
            self._dynamic = handler
        elif handler is None:
            self._handlers.pop(name, None)
        else:
            self._handlers[name] = handler

    def find(self, name: str) -> QueryHandler | None:
        """Who answers it; None for nobody."""
        return self._handlers.get(name) or self._dynamic
