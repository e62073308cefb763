"""Values to JSON: one half of the `json/plain` encoding; decoding.py is the other.

Written as JSON: what JSON has; dataclasses and pydantic models as objects; enums by value;
datetime, date and time as ISO 8601; UUID, Decimal and paths as strings; timedelta as seconds; bytes
inside another value as base64; sets, tuples and named tuples as arrays. A dataclass's fields whose
names begin with an underscore are private and not written.

Refused, whatever the hint: what JSON has no form for; what would be lost for any reader (NaN,
integers beyond 64 bits, keys that become one, secrets, a pydantic model that is another one when it
is read back).
"""

import base64
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final, cast

import orjson

from aetheris_client.errors import PayloadEncodeError
from aetheris_client.typed_json.kinds import is_pydantic, type_name
from aetheris_client.typed_json.mismatch import key_step

# orjson's own way with a dataclass writes attributes that are no fields, and leaves out the fields
# that a base class has in slots.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS


def encode(value: object) -> bytes:
    """The value as JSON.

    Raises:
        PayloadEncodeError: Some part of it has no JSON form; names its type and path.
    """
    try:
        data = orjson.dumps(value, encode_plain, _OPTIONS)
    except orjson.JSONEncodeError as error:
        # Keys that are not strings cost every other call a check, so they are only allowed at the
        # second try.
        try:
            data = orjson.dumps(value, encode_plain, _OPTIONS | orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError:
            raise _explain(value, error) from error
        _refuse_merging_keys(value)
    # orjson writes NaN and infinities as null, which would come back as None.
    if b"null" in data:
        _refuse_non_finite(value)
    return data


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
    kind = type(value)
    if dataclasses.is_dataclass(kind):
        return {name: getattr(value, name) for name in written_fields(kind)}
    if is_pydantic(kind):
        return _plain_model(value)
    if hasattr(value, "get_secret_value"):
        raise TypeError("a secret is not written: pass a reference to it, or get_secret_value()")
    raise TypeError(type(value).__qualname__)


@functools.lru_cache(maxsize=4096)
def written_fields(kind: type) -> Sequence[str]:
    """The fields of a dataclass that are written; private ones are not."""
    fields = dataclasses.fields(cast(Any, kind))
    return tuple(field.name for field in fields if not field.name.startswith("_"))


def _plain_model(model: Any) -> object:
    plain = model.model_dump(mode="json", by_alias=True, round_trip=True)
    kind: Any = type(cast(object, model))
    try:
        back = kind.model_validate_json(orjson.dumps(plain))
    except Exception as error:
        raise TypeError(f"it could not be read back: {error}") from error
    names: Sequence[str] = [*kind.model_fields, "model_extra"]
    lost = [name for name in names if getattr(model, name) != getattr(back, name)]
    if lost:
        raise TypeError(f"it would be read back with other {', '.join(lost)}")
    return plain


def _explain(value: object, error: orjson.JSONEncodeError) -> PayloadEncodeError:
    """Find the part that orjson refused, which it does not name."""
    for path, part in _walk(value, "$", 0):
        try:
            orjson.dumps(part, _shallow, _OPTIONS | orjson.OPT_NON_STR_KEYS)
        except orjson.JSONEncodeError as refusal:
            return PayloadEncodeError(
                type_name(type(part)), path, str(refusal.__cause__ or refusal)
            )
    return PayloadEncodeError(type_name(type(value)), "$", str(error))


def _shallow(value: object) -> object:
    plain = encode_plain(value)
    return None if isinstance(plain, (list, dict)) else plain


def _refuse_non_finite(value: object) -> None:
    for path, part in _walk(value, "$", 0):
        if isinstance(part, float) and not math.isfinite(part):
            raise PayloadEncodeError("float", path, f"JSON has no {part}")


def _refuse_merging_keys(value: object) -> None:
    for path, part in _walk(value, "$", 0):
        if isinstance(part, Mapping):
            keys = list(cast(Mapping[object, object], part))
            written = orjson.loads(orjson.dumps(dict.fromkeys(keys), None, orjson.OPT_NON_STR_KEYS))
            if len(written) < len(keys):
                raise PayloadEncodeError("dict", path, "JSON makes one of two keys")


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
            yield key_step(key), part
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, part in enumerate(cast("Sequence[object]", value)):
            yield f"[{index}]", part
    elif isinstance(value, Enum):
        yield "", value.value
    elif is_pydantic(type(value)):
        fields = cast(Any, type(value)).model_fields
        for name in fields:
            yield f".{name}", getattr(value, name)
