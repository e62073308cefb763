"""The hints of a class's fields, with the type variables of generic classes filled in."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from aetheris_client.hints import hints_of
from aetheris_client.typed_json.kinds import is_named_tuple


def field_hints(hint: object) -> dict[str, object]:
    """The hints of a dataclass's, typed dict's or named tuple's fields, with the type variables of
    its generic class, and of the generic classes that it inherits from, replaced; Any where there
    is none.
    """
    kind = cast(type[Any], typing.get_origin(hint) or hint)
    hints = hints_of(kind)
    names: Iterable[str] = hints
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
    elif is_named_tuple(kind):
        names = kind._fields
    bindings = _bindings(kind, typing.get_args(hint))
    # A typed dict does not say which base a key is from.
    anywhere = {key: value for binding in bindings.values() for key, value in binding.items()}
    filled: dict[str, object] = {}
    for name in names:
        owner = next((c for c in kind.__mro__ if name in vars(c).get("__annotations__", {})), kind)
        arguments = anywhere | bindings.get(owner, {})
        filled[name] = _filled_in(hints.get(name, Any), arguments)
    return filled


def _bindings(kind: type, args: tuple[object, ...]) -> dict[type, dict[object, object]]:
    """For the class and each generic base, what its type variables stand for: two bases may name
    theirs alike and mean different types.
    """
    parameters: tuple[object, ...] = getattr(kind, "__parameters__", ())
    own = dict(zip(parameters, args, strict=False))
    found: dict[type, dict[object, object]] = {kind: own}
    bases: tuple[object, ...] = vars(kind).get("__orig_bases__", kind.__bases__)
    for base in bases:
        origin = typing.get_origin(base) or base
        if isinstance(origin, type):
            base_args = tuple(_filled_in(arg, own) for arg in typing.get_args(base))
            found = {**_bindings(origin, base_args), **found}
    return found


def _filled_in(hint: object, arguments: Mapping[object, object]) -> object:
    """A hint with the type variables that have arguments replaced."""
    if not arguments:
        return hint
    if isinstance(hint, TypeVar):
        return arguments.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or isinstance(hint, type):
        return hint
    return cast(Any, hint)[tuple(_filled_in(parameter, arguments) for parameter in parameters)]
