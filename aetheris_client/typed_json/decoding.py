"""Type hints to decoders: turns parsed JSON into the value that a hint asks for; the other half of
encoding.py.

A decoder is made once per hint and kept, so that a call costs no inspection. A string is no number
and a bool is no int; what is lenient is said in classes.py, which member of a union is taken in
unions.py.
"""

import json
import re
import typing
from typing import Any, Final, Literal

import orjson

from aetheris_client.errors import PayloadDecodeError
from aetheris_client.typed_json.choices import literal
from aetheris_client.typed_json.classes import class_decoder
from aetheris_client.typed_json.containers import CONTAINERS
from aetheris_client.typed_json.kinds import is_union, meant_by, type_name
from aetheris_client.typed_json.mismatch import Decoder, MismatchError
from aetheris_client.typed_json.scalars import SCALARS, as_is
from aetheris_client.typed_json.unions import union

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
        return union(hint, args, decoder_for)
    if origin is Literal:
        return literal(hint, args)
    kind = origin or hint
    if not isinstance(kind, type):
        return as_is
    if kind in CONTAINERS:
        return CONTAINERS[kind](hint, args, decoder_for)
    if kind in SCALARS:
        return SCALARS[kind]
    return class_decoder(hint, kind, decoder_for)
