"""Type hints to decoders: turns parsed JSON into the value that a hint asks for; the other half of
json_encoding.

A decoder is made once per hint and kept, so that a call costs no inspection. On success it keeps no
track of where it is; an error collects its path on the way out.

Lenient where versions of code meet: a dataclass ignores keys it does not know and fills missing
ones from its defaults. Strict everywhere else: a string is no number, a bool is no int. Of a union,
the first member that accepts the value wins.
"""

import collections.abc as abc
import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, Literal, TypeVar, Union, cast

import orjson

from aetheris_client.errors import PayloadDecodeError
from aetheris_client.hints import hints_of
from aetheris_client.json_encoding import type_name
from aetheris_client.json_scalars import (
    SCALARS,
    UNREADABLE,
    Decoder,
    MismatchError,
    as_is,
    converted,
    exact,
    kind_of,
    literal,
    wrong,
)

_MAX_KEPT_DECODERS = 4096


def decode(value: object, hint: object) -> object:
    """The value that a hint asks for, made of parsed JSON. A hint of None asks for nothing in
    particular.

    Raises:
        PayloadDecodeError: It cannot be made of that; names the wanted type and the path.
    """
    if hint is None:
        return value
    try:
        return decoder_for(hint)(value)
    except MismatchError as error:
        path = "$" + "".join(reversed(error.path))
        raise PayloadDecodeError(type_name(error.wanted), path, error.reason) from error.__cause__


# By identity: `A | B` equals `B | A`, but prefers another member. The hint is kept beside its
# decoder, so that its id is not given to another one.
_decoders: dict[int, tuple[object, Decoder]] = {}


def decoder_for(hint: object) -> Decoder:
    """The function that makes values of a hint; raises no more than calling it does."""
    kept = _decoders.get(id(hint))
    if kept is not None:
        return kept[1]
    decoder = _make_decoder(hint)
    if len(_decoders) >= _MAX_KEPT_DECODERS:
        _decoders.clear()
    _decoders[id(hint)] = (hint, decoder)
    return decoder


def _make_decoder(hint: object) -> Decoder:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return as_is
    if origin in (Union, types.UnionType):
        return _union(hint, args)
    if origin is Literal:
        return literal(hint, args)
    if origin in _WRAPPERS:
        return decoder_for(args[0])
    if (meant := _alias_target(hint)) is not None:
        return decoder_for(meant)
    kind = origin or hint
    if not isinstance(kind, type):
        return as_is
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](hint, args)
    return _make_class_decoder(hint, kind, args)


def _make_class_decoder(hint: object, kind: type[Any], args: tuple[object, ...]) -> Decoder:
    if kind in SCALARS:
        return SCALARS[kind]
    if hasattr(kind, "model_validate_json"):
        return _pydantic(hint)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, _type_arguments(kind, args))
    if _has_base(kind, dict) and hasattr(kind, "__required_keys__"):
        return _typed_dict(kind, _type_arguments(kind, args))
    if _has_base(kind, tuple) and hasattr(kind, "_fields"):
        return _named_tuple(kind)
    if _has_base(kind, Enum):
        return converted(kind, (object,), kind)
    for base in (str, int, float):
        if _has_base(kind, base):
            return converted(kind, (base,), kind)
    if _has_base(kind, PurePath):
        return converted(kind, (str,), kind)
    return _instance(kind)


def _has_base(kind: type[Any], base: type[Any]) -> bool:
    return issubclass(kind, base)


_WRAPPERS: Final[tuple[object, ...]] = (
    typing.Annotated,
    typing.Required,
    typing.NotRequired,
    typing.Final,
    typing.ClassVar,
)


def _alias_target(hint: object) -> object | None:
    """What a NewType, a type variable or a `type` statement stands for; None for anything else."""
    if isinstance(hint, TypeVar):
        return hint.__bound__ or Any
    for attribute in ("__supertype__", "__value__"):
        meant = getattr(hint, attribute, None)
        if meant is not None and not isinstance(hint, type):
            return meant
    return None


# -- containers


def _items(wanted: object, decoder: Decoder) -> Callable[[object], Iterable[object]]:
    """Decode the items of an array, lazily."""

    def items(value: object) -> Iterable[object]:
        if not isinstance(value, list):
            raise wrong(wanted, value)
        for index, item in enumerate(cast(list[object], value)):
            try:
                yield decoder(item)
            except MismatchError as error:
                raise error.within(f"[{index}]") from error.__cause__

    return items


def _collection(
    make: Callable[[Iterable[object]], object],
) -> Callable[[object, tuple[object, ...]], Decoder]:
    def make_decoder(hint: object, args: tuple[object, ...]) -> Decoder:
        items = _items(hint, decoder_for(args[0] if args else Any))

        def decoder(value: object) -> object:
            try:
                return make(items(value))
            except UNREADABLE as error:
                # What a set cannot hold.
                raise MismatchError(hint, str(error)) from error

        return decoder

    return make_decoder


def _tuple(hint: object, args: tuple[object, ...]) -> Decoder:
    if not args or (len(args) == 2 and args[1] is Ellipsis):
        items = _items(hint, decoder_for(args[0] if args else Any))
        return lambda value: tuple(items(value))
    return _fixed_tuple(hint, args, tuple)


def _fixed_tuple(
    hint: object, args: Sequence[object], make: Callable[[list[object]], object]
) -> Decoder:
    decoders = [decoder_for(arg) for arg in args]

    def decoder(value: object) -> object:
        if not isinstance(value, list):
            raise wrong(hint, value)
        found = cast(list[object], value)
        if len(found) != len(decoders):
            raise MismatchError(hint, f"found {len(found)} items, expected {len(decoders)}")
        return make(
            [
                _step(d, item, f"[{i}]")
                for i, (d, item) in enumerate(zip(decoders, found, strict=True))
            ]
        )

    return decoder


def _step(decoder: Decoder, value: object, step: str) -> object:
    try:
        return decoder(value)
    except MismatchError as error:
        raise error.within(step) from error.__cause__


def _mapping(hint: object, args: tuple[object, ...]) -> Decoder:
    if not args:
        return exact(dict)
    key_decoder, value_decoder = _key(args[0]), decoder_for(args[1])

    def decoder(value: object) -> object:
        if not isinstance(value, dict):
            raise wrong(hint, value)
        try:
            return {
                _step(key_decoder, key, f".{key}"): _step(value_decoder, item, f".{key}")
                for key, item in cast(dict[str, object], value).items()
            }
        except UNREADABLE as error:
            # A key that no dict can hold.
            raise MismatchError(hint, str(error)) from error

    return decoder


def _key(hint: object) -> Decoder:
    """Keys are always strings in JSON; what is not a string was written as its JSON."""
    direct = decoder_for(hint)

    def decoder(key: object) -> object:
        try:
            return direct(key)
        except MismatchError:
            try:
                parsed = orjson.loads(cast(str, key))
            except orjson.JSONDecodeError:
                parsed = key
            return direct(parsed)

    return decoder


_CONTAINERS: Final[Mapping[type, Callable[[object, tuple[object, ...]], Decoder]]] = {
    **dict.fromkeys(
        (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable), _collection(list)
    ),
    **dict.fromkeys((set, abc.Set, abc.MutableSet), _collection(set)),
    frozenset: _collection(frozenset),
    tuple: _tuple,
    **dict.fromkeys((dict, abc.Mapping, abc.MutableMapping), _mapping),
}


# -- choices


def _union(hint: object, args: tuple[object, ...]) -> Decoder:
    others = [arg for arg in args if arg is not types.NoneType]
    has_none = len(others) < len(args)
    decoders = [decoder_for(arg) for arg in others]

    def decoder(value: object) -> object:
        if value is None and has_none:
            return None
        if len(decoders) == 1:
            return decoders[0](value)
        for member in decoders:
            try:
                return member(value)
            except MismatchError:
                continue
        raise MismatchError(hint, f"found {kind_of(value)} that no member accepts")

    return decoder


# -- classes


def _type_arguments(kind: type, args: tuple[object, ...]) -> dict[object, object]:
    return dict(zip(getattr(kind, "__parameters__", ()), args, strict=False))


def _filled_in(hint: object, arguments: Mapping[object, object]) -> object:
    """A field's hint with the type variables of its generic class replaced."""
    if not arguments:
        return hint
    if hint in arguments:
        return arguments[hint]
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or isinstance(hint, type):
        return hint
    return cast(Any, hint)[tuple(arguments.get(parameter, parameter) for parameter in parameters)]


def _dataclass(kind: type, arguments: Mapping[object, object]) -> Decoder:
    # Made at the first use, not before: the class may contain itself.
    fields: list[tuple[str, bool, Decoder]] = []

    def look_up() -> None:
        hints = hints_of(kind)
        fields.extend(
            (
                field.name,
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING,
                decoder_for(_filled_in(hints.get(field.name, Any), arguments)),
            )
            for field in dataclasses.fields(kind)
            if field.init
        )

    def decoder(value: object) -> object:
        if not isinstance(value, dict):
            raise wrong(kind, value)
        if not fields:
            look_up()
        found = cast(dict[str, object], value)
        try:
            return kind(**_read_fields(kind, fields, found))
        except UNREADABLE as error:
            raise MismatchError(kind, str(error)) from error

    return decoder


def _read_fields(
    kind: type, fields: Iterable[tuple[str, bool, Decoder]], found: Mapping[str, object]
) -> dict[str, object]:
    read: dict[str, object] = {}
    for name, is_required, decoder in fields:
        if name in found:
            read[name] = _step(decoder, found[name], f".{name}")
        elif is_required:
            raise MismatchError(kind, f"{name!r} is missing")
    return read


def _typed_dict(kind: type, arguments: Mapping[object, object]) -> Decoder:
    fields: list[tuple[str, bool, Decoder]] = []
    required: frozenset[str] = vars(kind)["__required_keys__"]

    def look_up() -> None:
        for name, hint in hints_of(kind).items():
            is_required = name in required and typing.get_origin(hint) is not typing.NotRequired
            fields.append((name, is_required, decoder_for(_filled_in(hint, arguments))))

    def decoder(value: object) -> object:
        if not isinstance(value, dict):
            raise wrong(kind, value)
        if not fields:
            look_up()
        found = cast(dict[str, object], value)
        return {**found, **_read_fields(kind, fields, found)}

    return decoder


def _named_tuple(kind: type) -> Decoder:
    hints = hints_of(kind)
    names = cast(tuple[str, ...], vars(kind)["_fields"])
    return _fixed_tuple(kind, [hints.get(name, Any) for name in names], lambda items: kind(*items))


def _pydantic(hint: object) -> Decoder:
    # From JSON, not from the parsed value: a strict model takes a date from JSON text and not from
    # a string.
    validate = cast(Callable[[bytes], object], cast(Any, hint).model_validate_json)

    def decoder(value: object) -> object:
        try:
            return validate(orjson.dumps(value))
        except ValueError as error:
            raise MismatchError(hint, str(error)) from error

    return decoder


def _instance(kind: type) -> Decoder:
    if getattr(kind, "_is_protocol", False):
        return as_is

    def decoder(value: object) -> object:
        if isinstance(value, kind):
            return value
        raise MismatchError(kind, f"found {kind_of(value)}, and the type says not how to read it")

    return decoder
