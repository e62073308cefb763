"""Bounds that every request keeps, whatever it asks for: one walk over the message, by rule.

- Messages nest `MAX_DEPTH` deep at most. A parser takes a hundred levels; what a request carries is
  stored and sent on inside further messages, and must be readable there.
- A repeated field or a map has `MAX_ITEMS` at most.
- A Duration or Timestamp is one by its own definition, so that every language can read it.

What a field means, and how long its text may be, is for the checks of the request. Where nothing of
a message type can break a rule, the walk does not enter it: most requests cost it next to nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from aetheris.api.v1 import common_pb2, worker_service_pb2
from aetheris_server.errors import InvalidArgumentError

__all__ = ["MAX_DEPTH", "MAX_ITEMS", "check_bounds"]

MAX_DEPTH = 64
MAX_ITEMS = 10_000

_NANOS = 999_999_999
_MAX_DURATION_SECONDS = 315_576_000_000
_MIN_TIMESTAMP_SECONDS = -62_135_596_800
_MAX_TIMESTAMP_SECONDS = 253_402_300_799

# Opaque, or judged one at a time: an answer of a batch must not fail the others.
_NOT_ENTERED = frozenset(
    {
        common_pb2.Payload.DESCRIPTOR.full_name,
        worker_service_pb2.TaskAnswer.DESCRIPTOR.full_name,
    }
)

_Path = tuple[Any, str] | None
"""Where the walk is, as (path of the outer message, name); joined only for an error."""


@dataclass(slots=True)
class _Plan:
    """What the walk does in messages of a type.

    Attributes:
        counted: Repeated fields and maps.
        entered_all: Those of them whose messages are entered, and whether it is a map.
        entered: Singular messages that are entered.
        oneofs: The same of oneofs, of which one at most is set: the fields by the oneof's name.
        leaves: Durations and Timestamps, with their checks.
    """

    counted: list[str] = field(default_factory=list[str])
    entered_all: list[tuple[str, bool, "_Plan"]] = field(
        default_factory=list[tuple[str, bool, "_Plan"]]
    )
    entered: list[tuple[str, "_Plan"]] = field(default_factory=list[tuple[str, "_Plan"]])
    oneofs: dict[str, dict[str, "_Plan"]] = field(default_factory=dict[str, dict[str, "_Plan"]])
    leaves: list[tuple[str, Callable[[Any], str | None]]] = field(
        default_factory=list[tuple[str, Callable[[Any], str | None]]]
    )


def check_bounds(request: Message, size: int | None = None, *, is_envelope: bool = False) -> None:
    """Refuse a request that breaks a rule.

    Args:
        request: As it came.
        size: Its bytes, if known: what is small cannot have too many of anything.
        is_envelope: It carries another request, which may be as deep as if it had come by itself.

    Raises:
        InvalidArgumentError: Names the field.
    """
    # An item takes a byte at least.
    plan = _plan_of(request.DESCRIPTOR, size is not None and size <= MAX_ITEMS)
    if plan is not None:
        _walk(request, plan, None, 0 if is_envelope else 1)


def _walk(message: Any, plan: _Plan, path: _Path, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(
            _join(path), f"expected at most {MAX_DEPTH} messages inside each other, found more"
        )
    if plan.counted or plan.leaves:
        _check_fields(message, plan, path)
    for name, inner in plan.entered:
        if message.HasField(name):
            _walk(getattr(message, name), inner, (path, name), depth + 1)
    for oneof, by_name in plan.oneofs.items():
        name = message.WhichOneof(oneof)
        if name in by_name:
            _walk(getattr(message, name), by_name[name], (path, name), depth + 1)
    for name, is_map, inner in plan.entered_all:
        items = getattr(message, name)
        for key, item in items.items() if is_map else enumerate(items):
            _walk(item, inner, ((path, name), f"[{key!r}]"), depth + 1)


def _check_fields(message: Any, plan: _Plan, path: _Path) -> None:
    for name in plan.counted:
        count = len(getattr(message, name))
        if count > MAX_ITEMS:
            raise InvalidArgumentError(
                _join((path, name)), f"expected at most {MAX_ITEMS}, found {count}"
            )
    for name, find_fault in plan.leaves:
        if message.HasField(name):
            fault = find_fault(getattr(message, name))
            if fault is not None:
                raise InvalidArgumentError(_join((path, name)), fault)


def _join(path: _Path) -> str:
    names: list[str] = []
    while path is not None:
        path, name = path
        names.append(name)
    return ".".join(reversed(names)).replace(".[", "[")


_plans: dict[tuple[str, bool], _Plan] = {}


@cache
def _plan_of(descriptor: Descriptor, is_small: bool) -> _Plan | None:
    """None where nothing in messages of the type can break a rule."""
    if not _can_break(descriptor, is_small, frozenset()):
        return None
    key = (descriptor.full_name, is_small)
    plan = _plans.get(key)
    if plan is None:
        # There before it is filled: a type may be within itself.
        plan = _plans[key] = _Plan()
        _fill(plan, descriptor, is_small)
    return plan


def _fill(plan: _Plan, descriptor: Descriptor, is_small: bool) -> None:
    for each in _fields_of(descriptor):
        if each.is_repeated:
            if not is_small:
                plan.counted.append(each.name)
            is_map, item_type = _item_type(each)
            inner = item_type and _plan_of(item_type, is_small)
            if inner is not None:
                plan.entered_all.append((each.name, is_map, inner))
        elif each.message_type is None:
            continue
        elif (leaf := _LEAVES.get(each.message_type.full_name)) is not None:
            plan.leaves.append((each.name, leaf))
        elif (inner := _plan_of(each.message_type, is_small)) is None:
            continue
        elif each.containing_oneof is not None:
            plan.oneofs.setdefault(each.containing_oneof.name, {})[each.name] = inner
        else:
            plan.entered.append((each.name, inner))


def _can_break(descriptor: Descriptor, is_small: bool, outer: frozenset[str]) -> bool:
    """Whether messages of a type may nest without end, repeat something too often, or hold a time.

    `outer` has the types that the walk has come through.
    """
    if descriptor.full_name in _NOT_ENTERED:
        return False
    if descriptor.full_name in outer or descriptor.full_name in _LEAVES:
        return True
    outer |= {descriptor.full_name}
    return any(
        (each.is_repeated and not is_small)
        or (each.message_type is not None and _can_break(each.message_type, is_small, outer))
        for each in _fields_of(descriptor)
    )


def _item_type(repeated: FieldDescriptor) -> tuple[bool, Descriptor | None]:
    """Whether the field is a map, and the type of its messages; None where it has no messages."""
    item_type = repeated.message_type
    if item_type is None or not item_type.GetOptions().map_entry:
        return False, item_type
    return True, item_type.fields_by_name["value"].message_type


def _fields_of(descriptor: Descriptor) -> list[FieldDescriptor]:
    return cast("list[FieldDescriptor]", descriptor.fields)


def _find_duration_fault(value: Any) -> str | None:
    seconds, nanos = value.seconds, value.nanos
    if not -_NANOS <= nanos <= _NANOS or seconds * nanos < 0:
        return f"expected nanos of at most {_NANOS} and the sign of the seconds, found {nanos}"
    if not -_MAX_DURATION_SECONDS <= seconds <= _MAX_DURATION_SECONDS:
        return f"expected at most {_MAX_DURATION_SECONDS} s, found {seconds} s"
    return None


def _find_timestamp_fault(value: Any) -> str | None:
    seconds, nanos = value.seconds, value.nanos
    if _MIN_TIMESTAMP_SECONDS <= seconds <= _MAX_TIMESTAMP_SECONDS and 0 <= nanos <= _NANOS:
        return None
    return f"expected a time from year 1 to 9999, found {seconds} s and {nanos} ns"


_LEAVES: dict[str, Callable[[Any], str | None]] = {
    "google.protobuf.Duration": _find_duration_fault,
    "google.protobuf.Timestamp": _find_timestamp_fault,
}
