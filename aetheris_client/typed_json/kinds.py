"""What a type or type hint is."""

import types
import typing
from typing import Any, Final, TypeVar, Union

_WRAPPERS: Final[tuple[object, ...]] = (
    typing.Annotated,
    typing.Required,
    typing.NotRequired,
    typing.Final,
    typing.ClassVar,
)


def meant_by(hint: object) -> object:
    """The hint without what says nothing of the value's type."""
    while True:
        if typing.get_origin(hint) in _WRAPPERS:
            hint = typing.get_args(hint)[0]
        elif (meant := _alias_target(hint)) is not None:
            hint = meant
        else:
            return hint


def _alias_target(hint: object) -> object | None:
    """What a NewType, a type variable or a `type` statement stands for; None for anything else."""
    if isinstance(hint, TypeVar):
        return hint.__bound__ or Any
    for attribute in ("__supertype__", "__value__"):
        meant = getattr(hint, attribute, None)
        if meant is not None and not isinstance(hint, type):
            return meant
    return None


def is_union(hint: object) -> bool:
    """Whether it is `A | B`, however written."""
    return typing.get_origin(hint) in (Union, types.UnionType)


def is_typed_dict(kind: type[Any]) -> bool:
    """Whether it is a TypedDict, whose values are plain dicts."""
    return has_base(kind, dict) and hasattr(kind, "__required_keys__")


def is_named_tuple(kind: type[Any]) -> bool:
    """Whether it is a NamedTuple or one of collections.namedtuple."""
    return has_base(kind, tuple) and hasattr(kind, "_fields")


def is_pydantic(kind: type) -> bool:
    """Whether it is a pydantic model, known by its method: the package need not be installed."""
    return hasattr(kind, "model_validate_json")


def has_base(kind: type[Any], base: type[Any]) -> bool:
    """`issubclass`, but a type checker goes on taking the kind for what it was."""
    return issubclass(kind, base)


def type_name(value_type: object) -> str:
    """A type or type hint, as people write it."""
    if isinstance(value_type, type) and not hasattr(value_type, "__args__"):
        return value_type.__qualname__
    return str(value_type).replace("typing.", "")
