"""Decoders of single JSON values: what json_decoding builds containers and classes from."""

import base64
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

Decoder: TypeAlias = Callable[[object], object]


class MismatchError(Exception):
    """A value is not what a hint says; callers on the way out add where they are."""

    def __init__(self, wanted: object, reason: str) -> None:
        super().__init__(reason)
        self.wanted = wanted
        self.reason = reason
        self.path: list[str] = []

    def within(self, step: str) -> "MismatchError":
        self.path.append(step)
        return self

    def full_path(self) -> str:
        """From the whole value to the part that is wrong."""
        return "$" + "".join(reversed(self.path))


def as_is(value: object) -> object:
    """For hints that ask for nothing in particular."""
    return value


def kind_of(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "a number"
        case float():
            # Not "a number": where an int is wanted, that would be what was asked for.
            return "a number with a fraction or an exponent"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return "bytes"


def wrong(wanted: object, value: object) -> MismatchError:
    """The error for a value of the wrong kind."""
    return MismatchError(wanted, f"found {kind_of(value)}")


def unreadable(wanted: object, error: Exception) -> MismatchError:
    """The error for what a constructor or parser raised, which may be anything; a mismatch that one
    met inside goes on as it is.
    """
    return error if isinstance(error, MismatchError) else MismatchError(wanted, str(error))


def exact(wanted: type) -> Decoder:
    """For a type that JSON has: nothing else is taken, no bool for an int."""

    def decoder(value: object) -> object:
        if type(value) is wanted:
            return value
        raise wrong(wanted, value)

    return decoder


def _float(value: object) -> object:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    raise wrong(float, value)


def _bytes(value: object) -> object:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return base64.b64decode(value, validate=True)
        except ValueError as error:
            # binascii.Error is one; letters beyond ASCII raise a plain one.
            raise MismatchError(bytes, f"not base64: {error}") from error
    raise wrong(bytes, value)


def converted(
    wanted: object, accepted: tuple[type, ...], convert: Callable[[Any], object]
) -> Decoder:
    """For a type made by one function from a value of some JSON kinds (object: of any)."""

    def decoder(value: object) -> object:
        if not isinstance(value, accepted) or (accepted != (object,) and isinstance(value, bool)):
            raise wrong(wanted, value)
        try:
            return convert(value)
        except Exception as error:
            raise unreadable(wanted, error) from error

    return decoder


def _decimal(text: object) -> Decimal:
    try:
        return Decimal(str(text))
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not a number") from error


SCALARS: Final[Mapping[type, Decoder]] = {
    object: as_is,
    types.NoneType: exact(types.NoneType),
    bool: exact(bool),
    int: exact(int),
    float: _float,
    str: exact(str),
    bytes: _bytes,
    bytearray: lambda value: bytearray(cast(bytes, _bytes(value))),
    datetime: converted(datetime, (str,), datetime.fromisoformat),
    date: converted(date, (str,), date.fromisoformat),
    time: converted(time, (str,), time.fromisoformat),
    timedelta: converted(timedelta, (int, float), lambda seconds: timedelta(seconds=seconds)),
    UUID: converted(UUID, (str,), UUID),
    Decimal: converted(Decimal, (str, int, float), _decimal),
    Path: converted(Path, (str,), Path),
}


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
