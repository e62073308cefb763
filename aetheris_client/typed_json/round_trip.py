"""Whether a value would come back from its payload as it went in.

What is encoded for a hint is decoded at once and held against the value: so nothing is accepted
that its receiver cannot read, or would read as something else. Under `Any`, what arrives is what
JSON makes of the value, and nothing is promised; under an abstract hint (`Sequence`, `Mapping`,
`Set`), the builtin type.
"""

import collections
import collections.abc as abc
import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, time, timezone
from functools import partial
from typing import Any, Final, Literal, cast

from aetheris_client.typed_json.fields import field_hints
from aetheris_client.typed_json.kinds import (
    is_named_tuple,
    is_pydantic,
    is_typed_dict,
    is_union,
    meant_by,
    type_name,
)
from aetheris_client.typed_json.mismatch import MismatchError, key_step

# One part of a value: its step in the path, its hint, and itself before and after.
_Part = tuple[str, object, object, object]

_PLAIN: Final = frozenset({str, int, bool, float, type(None), bytes})
_LOOSE: Final = frozenset({list, dict, tuple, set, frozenset})


def is_trivial(value: object, hint: Any) -> bool:
    """Whether there is nothing to check: JSON has the type itself, or the hint asks for nothing."""
    kind = type(value)
    if hint is None:
        return kind in _PLAIN or kind in _LOOSE
    return hint is Any or (kind is hint and kind in _PLAIN)


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a hint asks for, found out once.

    Attributes:
        members: Of a union.
        accepted: Classes of which a value has to be one; None where any will do.
        is_abstract: The value may be of another class than what arrives.
        parts: Takes a value and what came back apart; None for what is one.
    """

    hint: object
    members: tuple[object, ...] = ()
    accepted: tuple[type, ...] | None = None
    is_abstract: bool = False
    parts: Callable[[Any, Any], Iterator[_Part]] | None = None


# As decoders are kept: by identity, with the hint beside.
_shapes: dict[int, tuple[object, _Shape | None]] = {}
_MAX_KEPT_SHAPES: Final = 4096


def check_same(hint: object, value: object, back: object) -> None:
    """Compare a value with what came back of it, as far as the hint reaches.

    Raises:
        MismatchError: They differ; has the path.
    """
    kept = _shapes.get(id(hint))
    if kept is None:
        if len(_shapes) >= _MAX_KEPT_SHAPES:
            _shapes.clear()
        kept = _shapes[id(hint)] = (hint, _shape_of(meant_by(hint)))
    shape = kept[1]
    if shape is not None:
        _check_shape(shape, value, back)


def _check_shape(shape: _Shape, value: object, back: object) -> None:
    hint = shape.hint
    if shape.members:
        _check_member(shape, value, back)
        return
    if hint is float and type(value) is int:
        _require(value == back, hint, value, back)
        return
    if not shape.is_abstract:
        _require(type(back) is type(value), hint, value, back)
    if shape.accepted is not None:
        _require(isinstance(value, shape.accepted), hint, value, back)
    if shape.parts is None:
        _check_leaf(hint, value, back)
        return
    for step, part_hint, part, part_back in shape.parts(value, back):
        try:
            check_same(part_hint, part, part_back)
        except MismatchError as error:
            raise error.within(step) from None


def _shape_of(hint: Any) -> _Shape | None:
    """None for a hint that promises nothing."""
    args = typing.get_args(hint)
    origin: Any = typing.get_origin(hint) or hint
    if is_union(hint):
        return _Shape(hint, members=args)
    if origin is Literal:
        return _Shape(hint)
    if hint is Any or hint is object or not isinstance(origin, type):
        return None
    kind = cast(type[Any], origin)
    if getattr(kind, "_is_protocol", False):
        return None
    if is_typed_dict(kind):
        required: frozenset[str] = cast(Any, kind).__required_keys__
        return _Shape(
            hint, accepted=(dict,), parts=partial(_known_keys, hint, required, field_hints(hint))
        )
    if is_pydantic(kind):
        # Compared where it is written, whatever the hint.
        return _Shape(hint, accepted=(kind,), parts=lambda value, back: iter(()))
    if dataclasses.is_dataclass(kind) or is_named_tuple(kind):
        return _Shape(hint, accepted=(kind,), parts=partial(_attributes, field_hints(hint)))
    parts = _CONTAINERS.get(kind)
    abstract = _ABSTRACT.get(kind)
    return _Shape(
        hint,
        accepted=abstract or (kind,),
        is_abstract=abstract is not None,
        parts=None if parts is None else partial(parts, args),
    )


def _check_member(shape: _Shape, value: object, back: object) -> None:
    """One member of the union has to be what both are."""
    failure: MismatchError | None = None
    for member in shape.members:
        try:
            check_same(member, value, back)
        except MismatchError as error:
            # The one that gets farthest into the value says most.
            if failure is None or len(error.path) > len(failure.path):
                failure = error
        else:
            # Where it takes some liberty (an int for a float), no other may be the exact one.
            if all(_is_same(m, value, back) for m in shape.members if _is_same(m, value, value)):
                return
            break
    if failure is None or not failure.path:
        reason = f"{_named(value)} would arrive as {_named(back)}: another member takes it first"
        raise MismatchError(shape.hint, reason)
    raise failure


def _is_same(hint: object, value: object, back: object) -> bool:
    try:
        check_same(hint, value, back)
    except MismatchError:
        return False
    return True


def _check_leaf(hint: object, value: object, back: object) -> None:
    _require(type(back) is type(value), hint, value, back)
    if isinstance(value, (datetime, time)) and isinstance(back, (datetime, time)):
        if value.tzinfo is not None and not isinstance(value.tzinfo, timezone):
            raise MismatchError(
                hint,
                f"its time zone {value.tzinfo} would arrive as a fixed offset: "
                "convert it with astimezone(UTC)",
            )
        _require(value.fold == back.fold, hint, value, back)
        _require(value.utcoffset() == back.utcoffset(), hint, value, back)
    try:
        same = bool(value == back) and getattr(value, "__dict__", None) == getattr(
            back, "__dict__", None
        )
    except Exception as error:
        raise MismatchError(hint, f"it does not compare: {error}") from error
    _require(same, hint, value, back)


def _require(holds: object, hint: object, value: object, back: object) -> None:
    if holds:
        return
    if type(value) is type(back):
        raise MismatchError(hint, f"{_shown(value)} would arrive as {_shown(back)}")
    raise MismatchError(hint, f"{_named(value)} would arrive as {_named(back)}")


def _named(value: object) -> str:
    name = type_name(type(value))
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


_MAX_SHOWN: Final = 80


# What a value consists of.


def _attributes(hints: Mapping[str, object], value: object, back: object) -> Iterator[_Part]:
    for name, hint in hints.items():
        if hasattr(value, name):
            yield f".{name}", hint, getattr(value, name), getattr(back, name, None)


def _known_keys(
    hint: object,
    required: frozenset[str],
    hints: Mapping[str, object],
    value: Mapping[str, object],
    back: Mapping[str, object],
) -> Iterator[_Part]:
    _require(required <= value.keys() and value.keys() == back.keys(), hint, value, back)
    for name, item in value.items():
        # What the class does not name comes back as JSON has it.
        yield f".{name}", hints.get(name, type(item)), item, back[name]


def _items(
    args: tuple[object, ...], value: abc.Collection[object], back: abc.Collection[object]
) -> Iterator[_Part]:
    _require(len(value) == len(back), list, value, back)
    hint: Any = args[0] if args else Any
    is_plain = hint in _PLAIN and _are_plain(hint, value) and _are_plain(hint, back)
    # Others may not be comparable at all, such as a signalling NaN.
    if is_plain and value == back:
        # What most large values are.
        return
    for index, (item, item_back) in enumerate(zip(value, back, strict=True)):
        yield f"[{index}]", hint, item, item_back


def _are_plain(kind: Any, items: abc.Collection[object]) -> bool:
    return all(type(item) is kind for item in items)


def _places(
    args: tuple[object, ...], value: tuple[object, ...], back: tuple[object, ...]
) -> Iterator[_Part]:
    if not args or args[-1] is Ellipsis:
        yield from _items(args, value, back)
        return
    _require(len(value) == len(args), tuple, value, back)
    for index, parts in enumerate(zip(args, value, back, strict=True)):
        yield f"[{index}]", *parts


def _members(
    args: tuple[object, ...], value: abc.Set[object], back: abc.Set[object]
) -> Iterator[_Part]:
    found = {item: item for item in back}
    hint = args[0] if args else Any
    for item in value:
        if meant_by(hint) is not Any:
            _require(item in found, hint, value, back)
            yield f"[{item!r}]", hint, item, found[item]


def _entries(
    args: tuple[object, ...], value: Mapping[object, object], back: Mapping[object, object]
) -> Iterator[_Part]:
    key_hint, hint = (*args, int)[:2] if args else (Any, Any)
    _require(len(value) == len(back), dict, value, back)
    found = {key: key for key in back}
    for (key, item), key_back in zip(value.items(), back, strict=True):
        step = key_step(key)
        yield step, key_hint, key, found.get(key, key_back)
        yield step, hint, item, back[key_back]


_CONTAINERS: Final[Mapping[type, Callable[..., Iterator[_Part]]]] = {
    **dict.fromkeys(
        (list, abc.Sequence, abc.MutableSequence, abc.Collection, abc.Iterable), _items
    ),
    tuple: _places,
    **dict.fromkeys((set, frozenset, abc.Set, abc.MutableSet), _members),
    **dict.fromkeys(
        (
            dict,
            abc.Mapping,
            abc.MutableMapping,
            collections.OrderedDict,
            collections.Counter,
        ),
        _entries,
    ),
}
_ABSTRACT: Final[Mapping[type, tuple[type, ...]]] = {
    **dict.fromkeys((abc.Sequence, abc.Collection, abc.Iterable), (list, tuple)),
    abc.MutableSequence: (list,),
    abc.Set: (set, frozenset),
    abc.MutableSet: (set,),
    abc.Mapping: (abc.Mapping,),
    abc.MutableMapping: (abc.MutableMapping,),
}
