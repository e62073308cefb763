"""Decoders of single JSON values."""

import base64
import types
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final, cast
from uuid import UUID

from aetheris_client.typed_json.mismatch import Decoder, MismatchError, unreadable, wrong


def as_is(value: object) -> object:
    """For hints that ask for nothing in particular."""
    return value


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
