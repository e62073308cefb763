"""Type hints to decoders: turns parsed JSON into the value that a hint asks for; the other half of
json_encoding.

A decoder is made once per hint and kept, so that a call costs no inspection. On success it keeps no
track of where it is; an error collects its path on the way out.

Lenient where versions of code meet: a dataclass ignores keys it does not know and fills missing
ones from its defaults. Strict everywhere else: a string is no number, a bool is no int. Of a union,
a class with exactly the fields that are there wins, else the first member that accepts the value.
"""

import collections
import collections.abc as abc
import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, Literal, TypeVar, Union, cast

import orjson

from aetheris_client import json_encoding
from aetheris_client.errors import PayloadDecodeError, PayloadEncodeError
from aetheris_client.hints import hints_of
from aetheris_client.json_encoding import is_pydantic, key_step, type_name, written_fields
from aetheris_client.json_scalars import (
    SCALARS,
    Decoder,
    MismatchError,
    as_is,
    converted,
    kind_of,
    literal,
    unreadable,
    wrong,
)

_MAX_KEPT_DECODERS = 4096
_LONG_NUMBER: Final = re.compile(rb"[0-9]{19}")


def parse(data: bytes | str) -> Any:
    """JSON as values; integers of any size exactly.

    Raises:
        ValueError: It is not JSON.
    """
    value = orjson.loads(data)
    if isinstance(data, str):
        data = data.encode()
    # orjson makes floats of integers beyond 64 bits.
    return json.loads(data) if _LONG_NUMBER.search(data) else value


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
        name = type_name(error.wanted)
        raise PayloadDecodeError(name, error.full_path(), error.reason) from error.__cause__
    except RecursionError as error:
        raise PayloadDecodeError(type_name(hint), "$", "nested too deep") from error


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
    hint = meant_by(hint)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return as_is
    if is_union(hint):
        return _union(hint, args)
    if origin is Literal:
        return literal(hint, args)
    kind = origin or hint
    if not isinstance(kind, type):
        return as_is
    if kind in _CONTAINERS:
        return _CONTAINERS[kind](hint, args)
    return _make_class_decoder(hint, kind, args)


def _make_class_decoder(hint: object, kind: type[Any], args: tuple[object, ...]) -> Decoder:
    if kind in SCALARS:
        return SCALARS[kind]
    if is_pydantic(kind):
        return _pydantic(hint)
    if dataclasses.is_dataclass(kind):
        return _dataclass(hint, kind)
    if is_typed_dict(kind):
        return _typed_dict(hint, kind)
    if is_named_tuple(kind):
        fields = field_hints(hint)
        return _fixed_tuple(kind, list(fields.values()), lambda items: kind(*items))
    if _has_base(kind, Enum):
        return _enum(kind)
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


def meant_by(hint: object) -> object:
    """The hint without what says nothing of the value's type."""
    while True:
        if typing.get_origin(hint) in _WRAPPERS:
            hint = typing.get_args(hint)[0]
        elif (meant := _alias_target(hint)) is not None:
            hint = meant
        else:
            return hint


def is_union(hint: object) -> bool:
    """Whether it is `A | B`, however written."""
    return typing.get_origin(hint) in (Union, types.UnionType)


def is_typed_dict(kind: type[Any]) -> bool:
    """Whether it is a TypedDict, whose values are plain dicts."""
    return _has_base(kind, dict) and hasattr(kind, "__required_keys__")


def is_named_tuple(kind: type[Any]) -> bool:
    """Whether it is a NamedTuple or one of collections.namedtuple."""
    return _has_base(kind, tuple) and hasattr(kind, "_fields")


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
            except Exception as error:
                # What a set cannot hold.
                raise unreadable(hint, error) from error

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
        try:
            return make(
                [
                    _step(d, item, f"[{i}]")
                    for i, (d, item) in enumerate(zip(decoders, found, strict=True))
                ]
            )
        except Exception as error:
            raise unreadable(hint, error) from error

    return decoder


def _step(decoder: Decoder, value: object, step: str) -> object:
    try:
        return decoder(value)
    except MismatchError as error:
        raise error.within(step) from error.__cause__


def _mapping(
    make: Callable[[dict[object, object]], object], default_args: tuple[object, ...] = (Any, Any)
) -> Callable[[object, tuple[object, ...]], Decoder]:
    def make_decoder(hint: object, args: tuple[object, ...]) -> Decoder:
        key_hint, value_hint = (*args, *default_args[len(args) :])
        key_decoder, value_decoder = _key(key_hint), decoder_for(value_hint)

        def decoder(value: object) -> object:
            if not isinstance(value, dict):
                raise wrong(hint, value)
            try:
                return make(
                    {
                        _step(key_decoder, key, key_step(key)): _step(
                            value_decoder, item, key_step(key)
                        )
                        for key, item in cast(dict[str, object], value).items()
                    }
                )
            except Exception as error:
                # A key that no dict can hold.
                raise unreadable(hint, error) from error

        return decoder

    return make_decoder


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
    **dict.fromkeys((dict, abc.Mapping, abc.MutableMapping), _mapping(lambda found: found)),
    collections.OrderedDict: _mapping(collections.OrderedDict),
    collections.Counter: _mapping(collections.Counter, (Any, int)),
}


# -- choices


def _union(hint: object, args: tuple[object, ...]) -> Decoder:
    # An int would also be taken as a float.
    others = [arg for arg in args if arg is not types.NoneType]
    others.sort(key=lambda arg: arg is float)
    has_none = len(others) < len(args)
    decoders = [decoder_for(arg) for arg in others]
    names = [_written_names(arg) for arg in others]

    def written_as(value: object) -> Iterable[Decoder]:
        """Members of exactly these fields."""
        if not isinstance(value, dict):
            return ()
        keys = cast(dict[str, object], value).keys()
        return (d for d, name in zip(decoders, names, strict=True) if name == keys)

    def decoder(value: object) -> object:
        if value is None and has_none:
            return None
        if len(decoders) == 1:
            return decoders[0](value)
        for member in (*written_as(value), *decoders):
            try:
                return member(value)
            except MismatchError:
                continue
        raise MismatchError(hint, f"found {kind_of(value)} that no member accepts")

    return decoder


def _written_names(hint: object) -> abc.Set[str] | None:
    """The keys of the object that a class is written as; None for what is none."""
    hint = meant_by(hint)
    kind = typing.get_origin(hint) or hint
    if not isinstance(kind, type):
        return None
    if is_pydantic(kind):
        fields = cast(Mapping[str, Any], cast(Any, kind).model_fields)
        return {field.serialization_alias or name for name, field in fields.items()}
    if dataclasses.is_dataclass(kind):
        return set(written_fields(kind))
    return None


# -- classes


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


def _dataclass(hint: object, kind: type) -> Decoder:
    # Made at the first use, not before: the class may contain itself.
    decoders: dict[str, Decoder] = {}
    fields = dataclasses.fields(kind)
    required = {
        field.name
        for field in fields
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    computed = [field.name for field in fields if not field.init]

    def decoder(value: object) -> object:
        if not isinstance(value, dict):
            raise wrong(kind, value)
        if not decoders:
            decoders.update(_decoders_of(hint))
        read = _read_fields(kind, decoders, required, cast(dict[str, object], value))
        stored = {name: read.pop(name) for name in computed if name in read}
        try:
            made = kind(**read)
            for name, item in stored.items():
                # Also of a frozen class: the value was made so.
                object.__setattr__(made, name, item)
        except Exception as error:
            raise unreadable(kind, error) from error
        return made

    return decoder


def _decoders_of(hint: object) -> dict[str, Decoder]:
    return {name: decoder_for(field_hint) for name, field_hint in field_hints(hint).items()}


def _read_fields(
    kind: type,
    decoders: Mapping[str, Decoder],
    required: abc.Set[str],
    found: Mapping[str, object],
) -> dict[str, object]:
    for name in decoders:
        if name in required and name not in found:
            raise MismatchError(kind, f"{name!r} is missing")
    return {
        name: _step(decoder, found[name], f".{name}")
        for name, decoder in decoders.items()
        if name in found
    }


def _typed_dict(hint: object, kind: type) -> Decoder:
    decoders: dict[str, Decoder] = {}
    required: set[str] = set()

    def look_up() -> None:
        decoders.update(_decoders_of(hint))
        required.update(
            name
            for name, field_hint in hints_of(kind).items()
            if name in vars(kind)["__required_keys__"]
            and typing.get_origin(field_hint) is not typing.NotRequired
        )

    def decoder(value: object) -> object:
        if not isinstance(value, dict):
            raise wrong(kind, value)
        if not decoders:
            look_up()
        found = cast(dict[str, object], value)
        return {**found, **_read_fields(kind, decoders, required, found)}

    return decoder


def _enum(kind: type[Enum]) -> Decoder:
    # By what is written of their values: a tuple is no array, a Decimal no string.
    written: dict[bytes, Enum] = {}

    def look_up() -> None:
        for member in kind:
            try:
                written.setdefault(json_encoding.encode(member.value), member)
            except PayloadEncodeError:
                continue

    def decoder(value: object) -> object:
        if not written:
            look_up()
        member = written.get(orjson.dumps(value))
        if member is not None:
            return member
        try:
            # What the class makes itself: combined flags, `_missing_`.
            return kind(value)
        except Exception as error:
            raise unreadable(kind, error) from error

    return decoder


def _pydantic(hint: object) -> Decoder:
    # From JSON, not from the parsed value: a strict model takes a date from JSON text and not from
    # a string.
    validate = cast(Callable[[bytes], object], cast(Any, hint).model_validate_json)

    def decoder(value: object) -> object:
        try:
            return validate(orjson.dumps(value))
        except Exception as error:
            raise unreadable(hint, error) from error

    return decoder


def _instance(kind: type) -> Decoder:
    if getattr(kind, "_is_protocol", False):
        return as_is

    def decoder(value: object) -> object:
        if isinstance(value, kind):
            return value
        raise MismatchError(kind, f"found {kind_of(value)}, and the type says not how to read it")

    return decoder
