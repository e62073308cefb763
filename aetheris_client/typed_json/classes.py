"""Decoders of classes.

Lenient where versions of code meet: a dataclass ignores keys it does not know and fills missing
ones from its defaults.
"""

import collections.abc as abc
import dataclasses
import functools
import typing
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

import orjson

from aetheris_client.hints import hints_of
from aetheris_client.typed_json.choices import enum_member
from aetheris_client.typed_json.containers import fixed_tuple
from aetheris_client.typed_json.fields import field_hints
from aetheris_client.typed_json.kinds import has_base, is_named_tuple, is_pydantic, is_typed_dict
from aetheris_client.typed_json.mismatch import (
    Decoder,
    DecoderFor,
    MismatchError,
    decode_part,
    kind_of,
    unreadable,
    wrong,
)
from aetheris_client.typed_json.scalars import as_is, converted


def class_decoder(hint: object, kind: type[Any], decoder_for: DecoderFor) -> Decoder:
    """For a class that JSON does not have.

    Args:
        hint: The class, with its type arguments if it is generic.
        kind: The class alone.
        decoder_for: Where to find the decoders of its fields.
    """
    if is_pydantic(kind):
        return _pydantic(hint)
    if dataclasses.is_dataclass(kind):
        return _dataclass(hint, kind, decoder_for)
    if is_typed_dict(kind):
        return _typed_dict(hint, kind, decoder_for)
    if is_named_tuple(kind):
        decoders = list(_decoders_of(hint, decoder_for).values())
        return fixed_tuple(kind, decoders, lambda items: kind(*items))
    if has_base(kind, Enum):
        return enum_member(kind)
    for base in (str, int, float):
        if has_base(kind, base):
            return converted(kind, (base,), kind)
    if has_base(kind, PurePath):
        return converted(kind, (str,), kind)
    return _instance(kind)


def _dataclass(hint: object, kind: type, decoder_for: DecoderFor) -> Decoder:
    fields = dataclasses.fields(kind)
    required = {
        field.name
        for field in fields
        if field.init
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    }
    computed = [field.name for field in fields if not field.init]

    # Made at the first use, not before: the class may contain itself.
    @functools.cache
    def decoders() -> Mapping[str, Decoder]:
        return _decoders_of(hint, decoder_for)

    def decoder(value: object) -> object:
        if not isinstance(value, dict):
            raise wrong(kind, value)
        read = _read_fields(kind, decoders(), required, cast(dict[str, object], value))
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


def _decoders_of(hint: object, decoder_for: DecoderFor) -> dict[str, Decoder]:
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
        name: decode_part(decoder, found[name], f".{name}")
        for name, decoder in decoders.items()
        if name in found
    }


def _typed_dict(hint: object, kind: type, decoder_for: DecoderFor) -> Decoder:
    @functools.cache
    def keys() -> tuple[Mapping[str, Decoder], abc.Set[str]]:
        """The decoders of all, and those that are required."""
        required = {
            name
            for name, field_hint in hints_of(kind).items()
            if name in vars(kind)["__required_keys__"]
            and typing.get_origin(field_hint) is not typing.NotRequired
        }
        return _decoders_of(hint, decoder_for), required

    def decoder(value: object) -> object:
        if not isinstance(value, dict):
            raise wrong(kind, value)
        decoders, required = keys()
        found = cast(dict[str, object], value)
        return {**found, **_read_fields(kind, decoders, required, found)}

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
