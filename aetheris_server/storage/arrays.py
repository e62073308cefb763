"""Columns of values as Postgres arrays in their binary form, ready to be bound to `unnest`.

For the write path, where the driver's own dumpers, which choose a form for each element anew, cost
several times what the rest of a commit does. A value out of its type's range is a `struct.error`.

Source:
    array_recv in PostgreSQL's src/backend/utils/adt/arrayfuncs.c: the number of dimensions, whether
    there are nulls, the element type's oid, then length and lower bound of each dimension, then
    each element with its length before it, all big-endian.
"""

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from aetheris_server.storage.uuids import uuid_bytes

_BOOL, _BYTEA, _INT8, _INT2, _INT4, _TEXT, _TIMESTAMPTZ, _UUID, _JSONB = (
    16,
    17,
    20,
    21,
    23,
    25,
    1184,
    2950,
    3802,
)
_NULL = (-1).to_bytes(4, signed=True)
_UUID_LENGTH = (16).to_bytes(4)
_TIMESTAMP_LENGTH = (8).to_bytes(4)
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_HEADER = struct.Struct("!iiiii")


def bool_array(values: Sequence[bool]) -> bytes:
    """A bool[]."""
    return _fixed_array(_BOOL, "?", 1, values)


def int2_array(values: Sequence[int]) -> bytes:
    """An int2[]."""
    return _fixed_array(_INT2, "h", 2, values)


def int4_array(values: Sequence[int]) -> bytes:
    """An int4[]."""
    return _fixed_array(_INT4, "i", 4, values)


def int8_array(values: Sequence[int]) -> bytes:
    """An int8[]."""
    return _fixed_array(_INT8, "q", 8, values)


def uuid_array(values: Sequence[str]) -> bytes:
    """A uuid[] from their text; an empty text is null.

    Raises:
        ValueError: A text is not a UUID.
    """
    header = _header(_UUID, len(values), has_nulls="" in values)
    return header + b"".join(
        [_UUID_LENGTH + uuid_bytes(text) if text else _NULL for text in values]
    )


def timestamp_array(values: Sequence[datetime | None]) -> bytes:
    """A timestamptz[] from aware times; None is null."""
    header = _header(_TIMESTAMPTZ, len(values), has_nulls=None in values)
    return header + b"".join(
        [
            _NULL
            if value is None
            else _TIMESTAMP_LENGTH + _microseconds(value).to_bytes(8, signed=True)
            for value in values
        ]
    )


def bytea_array(values: Sequence[bytes | None]) -> bytes:
    """A bytea[]; None is null."""
    return _variable_array(_BYTEA, values)


def text_array(values: Sequence[str | None]) -> bytes:
    """A text[]; None is null. Postgres refuses a text with a NUL character."""
    return _variable_array(_TEXT, [None if value is None else value.encode() for value in values])


def jsonb_array(values: Sequence[bytes | None]) -> bytes:
    """A jsonb[] from JSON texts in UTF-8; None is null."""
    # Version 1 of jsonb's binary form is the text behind a byte of 1.
    return _variable_array(_JSONB, [None if value is None else b"\x01" + value for value in values])


def _fixed_array(oid: int, code: str, size: int, values: Sequence[int | bool]) -> bytes:
    count = len(values)
    if not count:
        return _header(oid, 0, has_nulls=False)
    interleaved: list[int | bool] = [size] * (2 * count)
    interleaved[1::2] = values
    return _layout(code, count).pack(1, 0, oid, count, 1, *interleaved)


@lru_cache(maxsize=1024)
def _layout(code: str, count: int) -> struct.Struct:
    return struct.Struct(f"!iiiii{('i' + code) * count}")


def _variable_array(oid: int, values: Sequence[bytes | None]) -> bytes:
    parts = [_header(oid, len(values), has_nulls=None in values)]
    for value in values:
        if value is None:
            parts.append(_NULL)
        else:
            parts.append(len(value).to_bytes(4))
            parts.append(value)
    return b"".join(parts)


def _header(oid: int, count: int, *, has_nulls: bool) -> bytes:
    return _HEADER.pack(1 if count else 0, has_nulls, oid, count, 1)[: None if count else 12]


def _microseconds(time: datetime) -> int:
    since = time - _POSTGRES_EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
