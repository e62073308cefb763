"""Decoders of one of some listed values: `Literal` and enums."""

import functools
from collections.abc import Mapping
from enum import Enum

import orjson

from aetheris_client.errors import PayloadEncodeError
from aetheris_client.typed_json.encoding import encode
from aetheris_client.typed_json.mismatch import Decoder, MismatchError, unreadable


def literal(hint: object, args: tuple[object, ...]) -> Decoder:
    """For `Literal`: only its own values."""
    # Compared with their types, since True == 1; enum members were written as their values.
    choices = {(type(_plain(arg)), _plain(arg)): arg for arg in args}

    def decoder(value: object) -> object:
        try:
            return choices[type(value), value]
        except (KeyError, TypeError):
            raise MismatchError(hint, f"found {value!r}") from None

    return decoder


def _plain(choice: object) -> object:
    return choice.value if isinstance(choice, Enum) else choice


def enum_member(kind: type[Enum]) -> Decoder:
    """For an enum: the member with the value that was written."""

    # Looked at whole, or not at all: several threads may decode at once.
    @functools.cache
    def written() -> Mapping[bytes, Enum]:
        """By what is written of their values: a tuple is no array, a Decimal no string."""
        members: dict[bytes, Enum] = {}
        for member in kind:
            try:
                members.setdefault(encode(member.value), member)
            except PayloadEncodeError:
                continue
        return members

    def decoder(value: object) -> object:
        try:
            member = written().get(orjson.dumps(value))
        except orjson.JSONEncodeError:
            # Bytes of a payload that is not JSON, or an integer beyond 64 bits.
            member = None
        if member is not None:
            return member
        try:
            # What the class makes itself: combined flags, `_missing_`.
            return kind(value)
        except Exception as error:
            raise unreadable(kind, error) from error

    return decoder
