"""Search attributes: typed notes on a run that the server reads, so they are always plain JSON."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, cast

from aetheris.api.v1.common_pb2 import Payload, SearchAttributes
from aetheris_client.converter import ENCODING, DataConverter
from aetheris_client.errors import PayloadEncodeError
from aetheris_client.typed_json.encoding import encode
from aetheris_client.typed_json.kinds import type_name

TYPE: Final = "type"


def to_search_attributes(values: Mapping[str, object]) -> SearchAttributes | None:
    """Typed values by name; None for none.

    Raises:
        PayloadEncodeError: A value is not of an indexed type: str, int, float, bool, an aware
            datetime or a list of str; or JSON cannot hold it. Names the attribute.
    """
    if not values:
        return None
    return SearchAttributes(
        indexed_fields={name: _to_payload(name, value) for name, value in values.items()}
    )


def from_search_attributes(attributes: SearchAttributes) -> dict[str, object]:
    """The values by name; datetimes as datetimes."""
    return {name: _from_payload(item) for name, item in attributes.indexed_fields.items()}


def _to_payload(name: str, value: object) -> Payload:
    metadata = {ENCODING: b"json/plain", TYPE: _indexed_type(name, value)}
    try:
        return Payload(metadata=metadata, data=encode(value))
    except PayloadEncodeError as error:
        raise error.within(f"search attribute {name!r}") from error.__cause__


def _from_payload(payload: Payload) -> object:
    hint = datetime if payload.metadata[TYPE] == b"Datetime" else None
    return DataConverter.default().from_payload_or_itself(payload, hint)


_INDEXED_TYPES: Final[tuple[tuple[type, bytes], ...]] = (
    # bool is an int, so it comes first.
    (bool, b"Bool"),
    (int, b"Int"),
    (float, b"Double"),
    (str, b"Keyword"),
)


def _indexed_type(name: str, value: object) -> bytes:
    for kind, indexed_type in _INDEXED_TYPES:
        if isinstance(value, kind):
            return indexed_type
    if isinstance(value, datetime) and value.tzinfo is not None:
        return b"Datetime"
    if isinstance(value, list) and all(isinstance(v, str) for v in cast(list[object], value)):
        return b"KeywordList"
    raise PayloadEncodeError(
        type_name(type(cast(object, value))),
        f"search attribute {name!r}",
        "expected str, int, float, bool, an aware datetime or a list of str",
    )
