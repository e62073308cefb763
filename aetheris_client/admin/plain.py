"""API messages as plain JSON values, payloads decoded: what `--output json` prints and tables
summarize.

Field names are the API's; unset fields are left out; enums lose their prefix; messages that are
only a name are the name; times are ISO 8601 and durations seconds.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final, cast

import orjson
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from aetheris.api.v1.common_pb2 import Header, Memo, Payload, Payloads, SearchAttributes
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.converter import (
    BytesConverter,
    DataConverter,
    JsonConverter,
    NullConverter,
    ProtobufConverter,
)
from aetheris_client.errors import PayloadDecodeError
from aetheris_client.failure import to_failure
from aetheris_client.times import from_duration, from_timestamp
from aetheris_client.typed_json.decoding import parse
from aetheris_client.typed_json.encoding import encode_plain


class _ProtobufAsJson(ProtobufConverter):
    """Shows messages of any type, also those that no program here knows."""

    def from_payload(self, payload: Payload, hint: object) -> object:
        try:
            return parse(payload.data)
        except (ValueError, RecursionError) as error:
            raise PayloadDecodeError("json/protobuf", "$", str(error)) from error


CONVERTER: Final = DataConverter(
    (NullConverter(), BytesConverter(), _ProtobufAsJson(), JsonConverter())
)
_OPTIONS: Final = orjson.OPT_NON_STR_KEYS


def plain(message: Message) -> Any:
    """A message as JSON values: an object, except for those that stand for something simpler."""
    match message:
        case Payload():
            return _payload(message)
        case Payloads():
            return [_payload(payload) for payload in message.payloads]
        case Memo() | Header():
            return _payload_map(message.fields)
        case SearchAttributes():
            return _payload_map(message.indexed_fields)
        case Timestamp():
            return from_timestamp(message).isoformat()
        case Duration():
            return from_duration(message).total_seconds()
        case HistoryEvent():
            return plain_event(message)
        case _:
            return _object(message)


def plain_event(event: HistoryEvent) -> dict[str, Any]:
    """An event, its attributes under one name whatever its type."""
    kind = event.WhichOneof("attributes")
    return {
        "event_id": event.event_id,
        "event_time": plain(event.event_time),
        "event_type": _enum_name(_enum_of(event, "event_type"), event.event_type),
        "attributes": plain(getattr(event, kind)) if kind is not None else {},
    }


def to_json(value: object, *, indent: bool = True) -> str:
    """Views, messages, errors and what they hold, as JSON, however deep and whatever is in them.

    What orjson does not take (deep nesting, integers beyond 64 bits, lone surrogates) costs the
    document its indentation, and nothing else.
    """
    options = orjson.OPT_INDENT_2 if indent else 0
    try:
        return orjson.dumps(value, _plain_value, _OPTIONS | options).decode()
    except orjson.JSONEncodeError:
        return orjson.dumps(_folded(value), option=options).decode()


def _folded(value: object) -> orjson.Fragment:
    """The value as JSON, written from its innermost parts outwards: nesting takes no stack."""
    root: list[Any] = [value]
    # Each part by its place in the container that holds it, which comes before its own parts.
    places: list[tuple[Any, Any]] = [(root, 0)]
    for holder, key in places:
        part = holder[key] = _opened(holder[key])
        if isinstance(part, dict):
            fields = cast(dict[str, object], part)
            places.extend((fields, name) for name in fields)
        elif isinstance(part, list):
            items = cast(list[object], part)
            places.extend((items, index) for index in range(len(items)))
    for holder, key in reversed(places):
        holder[key] = orjson.Fragment(_written(holder[key]))
    return root[0]


def _opened(value: object) -> object:
    """A container as a new dict or list with its parts as they are; another value as it is."""
    while True:
        match value:
            case Mapping():
                parts = cast(Mapping[object, object], value)
                return {_writable(str(name)): part for name, part in parts.items()}
            case list() | tuple() | set() | frozenset():
                return list(cast("Sequence[object] | AbstractSet[object]", value))
            case Message() | BaseException():
                value = _plain_value(value)
            case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
                return {
                    field.name: getattr(value, field.name) for field in dataclasses.fields(value)
                }
            case _:
                return value


def _written(value: object) -> bytes:
    """A part as JSON; where it is a container, its own parts are written already."""
    try:
        return orjson.dumps(value, _plain_value, _OPTIONS)
    except orjson.JSONEncodeError:
        return (
            str(value).encode() if isinstance(value, int) else orjson.dumps(_writable(str(value)))
        )


def _writable(text: str) -> str:
    """The text, lone surrogates as their escapes."""
    return text.encode(errors="backslashreplace").decode()


def _plain_value(value: object) -> object:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, BaseException):
        return plain(to_failure(value, CONVERTER, drops_details=True))
    return encode_plain(value)


def _object(message: Message) -> Any:
    fields = {field.name: _field(field, value) for field, value in message.ListFields()}
    if [field.name for field in message.DESCRIPTOR.fields] == ["name"]:
        return fields.get("name", "")
    return fields


def _field(field: FieldDescriptor, value: object) -> Any:
    if isinstance(value, Mapping):
        return {
            str(key): _scalar_or_message(field, item)
            for key, item in cast(Mapping[object, object], value).items()
        }
    if isinstance(value, Message | str | bytes | int | float):
        return _scalar_or_message(field, value)
    return [_scalar_or_message(field, item) for item in cast(Sequence[object], value)]


def _scalar_or_message(field: FieldDescriptor, value: object) -> Any:
    if isinstance(value, Message):
        return plain(value)
    if field.enum_type is not None and isinstance(value, int):
        return _enum_name(field.enum_type, value)
    return value


def _enum_of(message: Message, name: str) -> EnumDescriptor:
    return cast(EnumDescriptor, message.DESCRIPTOR.fields_by_name[name].enum_type)


def _enum_name(enum: EnumDescriptor, number: int) -> str:
    """The value's name without the enum's own, which the first value shows; its number if it is
    new.
    """
    value = enum.values_by_number.get(number)
    if value is None:
        return str(number)
    return value.name.removeprefix(enum.values[0].name.removesuffix("UNSPECIFIED"))


def _payload(payload: Payload) -> Any:
    value = CONVERTER.from_payload_or_itself(payload)
    if isinstance(value, Payload):
        return {"metadata": dict(payload.metadata), "data": payload.data}
    return value


def _payload_map(fields: Mapping[str, Payload]) -> dict[str, Any]:
    return {name: _payload(payload) for name, payload in fields.items()}
