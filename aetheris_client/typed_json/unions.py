"""The decoder of `A | B`.

A class with exactly the fields that are there wins, else the first member that accepts the value.
"""

import collections.abc as abc
import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, cast

from aetheris_client.typed_json.encoding import written_fields
from aetheris_client.typed_json.kinds import is_pydantic, meant_by
from aetheris_client.typed_json.mismatch import Decoder, DecoderFor, MismatchError, kind_of


def union(hint: object, args: tuple[object, ...], decoder_for: DecoderFor) -> Decoder:
    """For a union of these members."""
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
