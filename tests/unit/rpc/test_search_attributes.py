from aetheris.api.v1 import common_pb2
from aetheris_server.rpc.search_attributes import decode_search_attributes, encode_search_attributes


def attributes(**values: bytes) -> common_pb2.SearchAttributes:
    return common_pb2.SearchAttributes(
        indexed_fields={
            name: common_pb2.Payload(
                metadata={"encoding": b"json/plain", "type": b"keyword"}, data=data
            )
            for name, data in values.items()
        }
    )


def test_search_attributes_come_back() -> None:
    given = attributes(city=b'"Berlin"', sizes=b"[1,2.5]", nothing=b"null")
    encoded = encode_search_attributes(given)
    assert encoded is not None
    assert decode_search_attributes(encoded) == given


def test_search_attributes_that_are_not_set_are_no_column() -> None:
    assert encode_search_attributes(attributes(city=b"")) is None
