"""What decorated functions take and give, read from their annotations."""

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import cast

from aetheris_client.hints import hints_of


@dataclass(frozen=True, slots=True)
class Signature:
    """The types that payloads are converted to.

    Attributes:
        argument_types: In order, without `self`; None where there is no annotation.
        required_count: At least this many arguments.
        takes_any_number: There is a `*args`.
        rest_type: Of each value in `*args`; None where it has no annotation.
        result_type: None where there is no annotation; NoneType for `-> None`.
    """

    argument_types: tuple[object, ...]
    required_count: int
    takes_any_number: bool
    rest_type: object
    result_type: object

    def types_of(self, count: int) -> Sequence[object]:
        """The types of this many arguments."""
        beyond = count - len(self.argument_types)
        if beyond <= 0:
            return self.argument_types
        return (*self.argument_types, *(self.rest_type for _ in range(beyond)))

    def accepts(self, count: int) -> bool:
        """Whether the function can be called with this many arguments."""
        if count < self.required_count:
            return False
        return self.takes_any_number or count <= len(self.argument_types)


def signature_of(function: Callable[..., object]) -> Signature:
    """Read a function, a bound or unbound method, or an object with `__call__`."""
    if type(function) is FunctionType:
        return _read(function)
    if not inspect.isroutine(function):
        function = cast(Callable[..., object], type(function).__call__)
    return _read(getattr(function, "__func__", function))


@functools.lru_cache(maxsize=4096)
def _read(function: Callable[..., object]) -> Signature:
    hints = hints_of(function)
    parameters = list(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name == "self":
        parameters = parameters[1:]
    positional = [
        item
        for item in parameters
        if item.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    rest = [item.name for item in parameters if item.kind is inspect.Parameter.VAR_POSITIONAL]
    return Signature(
        tuple(hints.get(item.name) for item in positional),
        sum(item.default is inspect.Parameter.empty for item in positional),
        bool(rest),
        hints.get(rest[0]) if rest else None,
        hints.get("return"),
    )
