"""Search attributes as a run's row has them: JSON, so that the store can search them.

History writes what the frontend reads, so both come here for the form: an object of
`{"type": ..., "value": ...}` by name. Both read a value by `parse_json`, so that what passed the
check can be encoded.
"""

from typing import Any

import orjson

from aetheris.api.v1 import common_pb2
from aetheris_server.rpc.json_values import parse_json

__all__ = ["decode_search_attributes", "encode_search_attributes"]

_ENCODING = "encoding"
_TYPE = "type"
_JSON = b"json/plain"


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
