"""Type hints of functions and classes, resolved one by one.

A hint that does not resolve (a name that only a type checker imports) leaves what it is on untyped,
and nothing else; one warning names it.
"""

import functools
import inspect
import logging
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

_LOGGER: Final = logging.getLogger("aetheris.client")

_Namespace = dict[str, Any]


@functools.lru_cache(maxsize=4096)
def hints_of(subject: Callable[..., object] | type) -> Mapping[str, object]:
    """The hints of a function's parameters and its result (`return`), or of a class's fields with
    those of its bases; without those that do not resolve.
    """
    try:
        return typing.get_type_hints(subject, include_extras=True)
    except Exception:  # noqa: BLE001 - hints are code of the user's: each is tried by itself below
        return dict(_resolved_one_by_one(subject))


def _resolved_one_by_one(
    subject: Callable[..., object] | type,
) -> Iterator[tuple[str, object]]:
    for owner, name, hint, global_names, local_names in _annotations(subject):
        holder = types.SimpleNamespace(__annotations__={name: hint})
        try:
            resolved = typing.get_type_hints(holder, global_names, local_names, include_extras=True)
        except Exception as error:  # noqa: BLE001 - see hints_of
            _LOGGER.warning(
                "%s: the type hint %r of %r does not resolve (%s); it counts as absent, and values "
                "come as JSON has them",
                owner,
                hint,
                name,
                error,
            )
        else:
            yield name, resolved[name]


def _annotations(
    subject: Callable[..., object] | type,
) -> Iterator[tuple[str, str, object, _Namespace, _Namespace]]:
    """Each annotation: whose it is, its name, itself, and the names that it may use."""
    if isinstance(subject, type):
        for owner in reversed(subject.__mro__):
            global_names = vars(sys.modules.get(owner.__module__, types))
            for name, hint in cast(_Namespace, vars(owner).get("__annotations__", {})).items():
                yield owner.__qualname__, name, hint, global_names, dict(vars(owner))
        return
    function = inspect.unwrap(subject)
    names = cast(_Namespace, getattr(function, "__globals__", {}))
    for name, hint in cast(_Namespace, getattr(subject, "__annotations__", {})).items():
        yield subject.__qualname__, name, hint, names, names
