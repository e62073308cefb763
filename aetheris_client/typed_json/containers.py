"""Decoders of arrays, and of objects whose keys are data."""

import collections
import collections.abc as abc
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import orjson

from aetheris_client.typed_json.mismatch import (
    Decoder,
    DecoderFor,
    MismatchError,
    decode_part,
    key_step,
    unreadable,
    wrong,
)

# From a hint, its arguments, and where to find the decoders of those.
_Maker: TypeAlias = Callable[[object, tuple[object, ...], DecoderFor], Decoder]


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
) -> _Maker:
    def make_decoder(hint: object, args: tuple[object, ...], decoder_for: DecoderFor) -> Decoder:
        items = _items(hint, decoder_for(args[0] if args else Any))

        def decoder(value: object) -> object:
            try:
                return make(items(value))
            except Exception as error:
                # What a set cannot hold.
                raise unreadable(hint, error) from error

        return decoder

    return make_decoder


def _tuple(hint: object, args: tuple[object, ...], decoder_for: DecoderFor) -> Decoder:
    if not args or (len(args) == 2 and args[1] is Ellipsis):
        items = _items(hint, decoder_for(args[0] if args else Any))
        return lambda value: tuple(items(value))
    return fixed_tuple(hint, [decoder_for(arg) for arg in args], tuple)


def fixed_tuple(
    hint: object, decoders: Sequence[Decoder], make: Callable[[list[object]], object]
) -> Decoder:
    """For an array of as many items as there are decoders, each with its own."""

    def decoder(value: object) -> object:
        if not isinstance(value, list):
            raise wrong(hint, value)
        found = cast(list[object], value)
        if len(found) != len(decoders):
            raise MismatchError(hint, f"found {len(found)} items, expected {len(decoders)}")
        try:
            return make(
                [
                    decode_part(d, item, f"[{i}]")
                    for i, (d, item) in enumerate(zip(decoders, found, strict=True))
                ]
            )
        except Exception as error:
            raise unreadable(hint, error) from error

    return decoder


def _mapping(
    make: Callable[[dict[object, object]], object], default_args: tuple[object, ...] = (Any, Any)
) -> _Maker:
    def make_decoder(hint: object, args: tuple[object, ...], decoder_for: DecoderFor) -> Decoder:
        key_hint, value_hint = (*args, *default_args[len(args) :])
        key_decoder, value_decoder = _key(decoder_for(key_hint)), decoder_for(value_hint)

        def decoder(value: object) -> object:
            if not isinstance(value, dict):
                raise wrong(hint, value)
            try:
                return make(
                    {
                        decode_part(key_decoder, key, key_step(key)): decode_part(
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


def _key(direct: Decoder) -> Decoder:
    """Keys are always strings in JSON; what is not a string was written as its JSON."""

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


CONTAINERS: Final[Mapping[type, _Maker]] = {
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
