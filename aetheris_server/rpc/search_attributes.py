"""Search attributes as a run's row has them: JSON, so that the store can search them.

History writes what the frontend reads, so both come here for the form: an object of
`{"type": ..., "value": ...}` by name. Both read a value by `parse_json`, so that what passed the
check can be encoded.
"""

import re
from typing import Any

import orjson

from aetheris.api.v1 import common_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.rpc.json_values import parse_json

__all__ = ["check_search_attributes", "decode_search_attributes", "encode_search_attributes"]

MAX_SEARCH_ATTRIBUTES = 100
MAX_SEARCH_ATTRIBUTES_BYTES = 64 * 1024
"""They are indexed and parsed on each start; what is only to be kept belongs into the memo."""

_ENCODING = "encoding"
_TYPE = "type"
_JSON = b"json/plain"
_TYPE_NAME = re.compile(rb"[A-Za-z0-9_]{0,64}")
_SHOWN_CHARACTERS = 80


def check_search_attributes(attributes: common_pb2.SearchAttributes, name_max_bytes: int) -> None:
    """Named JSON values; an empty one is no value.

    Raises:
        InvalidArgumentError: They cannot be kept; names the part.
    """
    fields = attributes.indexed_fields
    if not fields:
        return
    field = "search_attributes.indexed_fields"
    if len(fields) > MAX_SEARCH_ATTRIBUTES:
        raise InvalidArgumentError(
            field, f"expected 0 to {MAX_SEARCH_ATTRIBUTES}, found {len(fields)}"
        )
    size = attributes.ByteSize()
    if size > MAX_SEARCH_ATTRIBUTES_BYTES:
        raise InvalidArgumentError(
            "search_attributes",
            f"expected at most {MAX_SEARCH_ATTRIBUTES_BYTES} bytes, found {size}",
        )
    for name, payload in fields.items():
        length = len(name.encode())
        if not 1 <= length <= name_max_bytes:
            raise InvalidArgumentError(
                field, f"expected names of 1 to {name_max_bytes} bytes, found {length}"
            )
        if "\0" in name:
            raise InvalidArgumentError(field, "expected no U+0000, found one")
        path = f"{field}[{name[:_SHOWN_CHARACTERS]!r}]"
        # Stored as text; which types there are is not the border's affair.
        if not _TYPE_NAME.fullmatch(payload.metadata.get(_TYPE, b"")):
            raise InvalidArgumentError(f"{path}.metadata", "expected a type's name")
        if payload.data:
            parse_json(path, payload.data)


def encode_search_attributes(attributes: common_pb2.SearchAttributes) -> bytes | None:
    """JSON in UTF-8; None where there are none.

    Args:
        attributes: Of a checked request: each value is JSON, or empty for one that is not set. A
            number that is no integer becomes a double.
    """
    values = {
        name: {
            _TYPE: payload.metadata[_TYPE].decode("ascii", "ignore"),
            "value": parse_json(name, payload.data),
        }
        for name, payload in sorted(attributes.indexed_fields.items())
        if payload.data
    }
    return orjson.dumps(values) if values else None


def decode_search_attributes(data: bytes) -> common_pb2.SearchAttributes:
    """The same values; each one's JSON may be spelled otherwise."""
    values: dict[str, dict[str, Any]] = orjson.loads(data)
    return common_pb2.SearchAttributes(
        indexed_fields={
            name: common_pb2.Payload(
                metadata={_ENCODING: _JSON, _TYPE: value[_TYPE].encode()},
                data=orjson.dumps(value["value"]),
            )
            for name, value in values.items()
        }
    )
