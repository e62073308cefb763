"""API messages as plain JSON values, payloads decoded: what `--output json` prints and tables
summarize.

Field names are the API's; unset fields are left out; enums lose their prefix; messages that are
only a name are the name; times are ISO 8601 and durations seconds.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC
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
from aetheris_client.failure import to_failure
from aetheris_client.json_encoding import encode_plain


class _ProtobufAsJson(ProtobufConverter):
    """Shows messages of any type, also those that no program here knows."""

    def from_payload(self, payload: Payload, hint: object) -> object:
        return orjson.loads(payload.data)


CONVERTER: Final = DataConverter(
    (NullConverter(), BytesConverter(), _ProtobufAsJson(), JsonConverter())
)


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
            return message.ToDatetime(UTC).isoformat()
        case Duration():
            return message.ToTimedelta().total_seconds()
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
    """Views, messages, errors and what they hold, as JSON."""
    options = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indent else 0)
    return orjson.dumps(value, _plain_value, options).decode()


def _plain_value(value: object) -> object:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, BaseException):
        return plain(to_failure(value, CONVERTER))
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
