"""Values to JSON: one half of the `json/plain` encoding; json_decoding is the other.

Written as JSON: what JSON has; dataclasses and pydantic models as objects; enums by value;
datetime, date and time as ISO 8601; UUID, Decimal and paths as strings; timedelta as seconds; bytes
inside another value as base64; sets, tuples and named tuples as arrays. A dataclass's fields whose
names begin with an underscore are private and not written.
"""

import base64
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

import orjson

from aetheris_client.errors import PayloadEncodeError


def encode(value: object) -> bytes:
    """The value as JSON.

    Raises:
        PayloadEncodeError: Some part of it has no JSON form; names its type and path.
    """
    try:
        data = orjson.dumps(value, encode_plain)
    except orjson.JSONEncodeError as error:
        # Keys that are not strings cost every other call a check, so they are only allowed at the
        # second try.
        try:
            data = orjson.dumps(value, encode_plain, orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError:
            raise _explain(value, error) from error
    # orjson writes NaN and infinities as null, which would come back as None.
    if b"null" in data:
        _refuse_non_finite(value)
    return data


def type_name(value_type: object) -> str:
    """A type or type hint, as people write it."""
    if isinstance(value_type, type) and not hasattr(value_type, "__args__"):
        return value_type.__qualname__
    return str(value_type).replace("typing.", "")


def encode_plain(value: object) -> object:
    """Asked by orjson for what it does not know itself."""
    match value:
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(cast(bytes, value))).decode()
        case tuple() | set() | frozenset():
            return list(cast("Sequence[object] | AbstractSet[object]", value))
        case Decimal() | PurePath():
            return str(value)
        case Mapping():
            return dict(cast(Mapping[object, object], value))
        case _:
            pass
    # A pydantic model, known by its method: the package need not be installed.
    model_dump = getattr(value, "model_dump", None)
    if model_dump is not None and not isinstance(value, type):
        return model_dump(mode="json", by_alias=True)
    raise TypeError(type(value).__qualname__)


def _explain(value: object, error: orjson.JSONEncodeError) -> PayloadEncodeError:
    """Find the part that orjson refused, which it does not name."""
    for path, part in _walk(value, "$", 0):
        try:
            orjson.dumps(part, _shallow, orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError as refusal:
            return PayloadEncodeError(type_name(type(part)), path, str(refusal))
    return PayloadEncodeError(type_name(type(value)), "$", str(error))


def _shallow(value: object) -> object:
    plain = encode_plain(value)
    return None if isinstance(plain, (list, dict)) else plain


def _refuse_non_finite(value: object) -> None:
    for path, part in _walk(value, "$", 0):
        if isinstance(part, float) and not math.isfinite(part):
            raise PayloadEncodeError("float", path, f"JSON has no {part}")


_MAX_WALK_DEPTH = 300


def _walk(value: object, path: str, depth: int) -> Iterator[tuple[str, object]]:
    """Every part of a value with its path, the innermost first; at the depth limit, the value as
    one.
    """
    if depth < _MAX_WALK_DEPTH:
        for name, part in _parts(value):
            yield from _walk(part, path + name, depth + 1)
    yield path, value


def _parts(value: object) -> Iterator[tuple[str, object]]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            if hasattr(value, field.name):
                yield f".{field.name}", getattr(value, field.name)
    elif isinstance(value, Mapping):
        for key, part in cast(Mapping[object, object], value).items():
            yield (f".{key}" if isinstance(key, str) else f"[{key!r}]"), part
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, part in enumerate(cast("Sequence[object]", value)):
            yield f"[{index}]", part
    elif isinstance(value, Enum):
        yield "", value.value
    elif hasattr(value, "model_dump") and not isinstance(value, type):
        fields = cast(Any, type(value)).model_fields
        for name in fields:
            yield f".{name}", getattr(value, name)
