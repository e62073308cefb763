"""What JSON passes the border, and that nothing which passes can fail behind it."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetheris.api.v1 import common_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.rpc.json_values import MAX_JSON_DEPTH, parse_json
from aetheris_server.rpc.search_attributes import decode_search_attributes, encode_search_attributes


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"null",
        b"-9223372036854775808",
        b"9223372036854775807",
        b"1.7976931348623157e308",
        b"5e-324",
        b"-0.0",
        rb'"\\u0000"',
        '"\U0001f600"'.encode(),
        rb'"\ud83d\ude00"',
        nested(MAX_JSON_DEPTH),
        b'{"a": {"b": [1, 2.5, "x", true]}}',
    ],
)
def test_json_within_bounds_says_what_it_said(data: bytes) -> None:
    assert parse_json("f", data) == json.loads(data)


@pytest.mark.parametrize(
    "data,path,problem",
    [
        (b"", "f", "expected JSON"),
        (b"Berlin", "f", "expected JSON"),
        (b"\xff", "f", "expected JSON"),
        (b"\xef\xbb\xbf1", "f", "expected JSON"),
        (b"NaN", "f", "found NaN"),
        (b"[Infinity]", "f", "found Infinity"),
        (b"1e400", "f", "that a double holds, found 1e400"),
        (b"1e999999999999", "f", "that a double holds"),
        (b"9223372036854775808", "f", "integers of 64 bits"),
        (b"-9223372036854775809", "f", "integers of 64 bits"),
        (b"9" * 5000, "f", "integers of 64 bits"),
        (b'{"a": 1, "a": 2}', "f", "'a' twice"),
        (rb'{"a": ["x", "\u0000"]}', "f.a[1]", r"no U\+0000"),
        (rb'{"a": {"\u0000": 1}}', "f.a", r"no U\+0000"),
        (rb'["\ud800"]', "f[0]", "surrogate pairs"),
        (rb'{"\udc00": 1}', "f", "surrogate pairs"),
        (nested(MAX_JSON_DEPTH + 1), "f", "at most 32 levels"),
        (nested(300), "f", "at most 32 levels"),
        (nested(30_000), "f", "at most 32 levels"),
        (nested(200, '{"a":', "}")[:-200] + b"1" + b"}" * 200, "f", "at most 32 levels"),
    ],
)
def test_json_out_of_bounds_is_refused_and_names_the_part(
    data: bytes, path: str, problem: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=problem) as caught:
        parse_json("f", data)
    assert caught.value.field == path


_TEXTS = st.text(st.characters(exclude_categories=()), max_size=5)
_NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([10**400, -(10**19), 2**64 - 1, 2**63]),
)
_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(_TEXTS, inner)),
    max_leaves=10,
)


@given(_VALUES, st.integers(0, 40))
def test_json_that_passes_never_fails_behind_the_border(value: Any, depth: int) -> None:
    data = b"[" * depth + json.dumps(value).encode() + b"]" * depth
    given_ = common_pb2.SearchAttributes()
    given_.indexed_fields["a"].data = data
    try:
        parsed = parse_json("a", data)
    except InvalidArgumentError:
        return
    encoded = encode_search_attributes(given_)
    assert encoded is not None
    decoded = decode_search_attributes(encoded).indexed_fields["a"].data
    assert orjson.loads(decoded) == parsed
