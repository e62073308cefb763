"""Values to payloads and back, by type hint."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import pydantic
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from aetheris.api.v1.common_pb2 import Payload, Payloads, WorkflowExecution
from aetheris_client.converter import DataConverter
from aetheris_client.errors import PayloadDecodeError, PayloadEncodeError

CONVERTER = DataConverter.default()
T = TypeVar("T")


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


UserId = NewType("UserId", str)


@dataclass(frozen=True, slots=True)
class Price:
    amount: Decimal
    currency: Literal["EUR", "USD"] = "EUR"


@dataclass
class Order:
    order_id: UUID
    prices: list[Price]
    placed: datetime
    owner: UserId
    colour: Colour | None = None
    by_level: dict[Level, tuple[int, str]] = field(default_factory=dict[Level, tuple[int, str]])
    wait: timedelta = timedelta(0)
    tags: frozenset[str] = frozenset()
    raw: bytes = b""
    parent: "Order | None" = None


@dataclass
class Box(Generic[T]):
    content: T
    more: list[T] = field(default_factory=list[T])


@dataclass
class Hidden:
    shown: int
    _hidden: int = 3


class Movie(TypedDict):
    title: str
    released: date
    rating: NotRequired[float]


class Point(NamedTuple):
    x: int
    y: float


class Address(pydantic.BaseModel):
    street: str
    since: date


class StrictAddress(pydantic.BaseModel, strict=True):
    since: date


ORDER = Order(
    order_id=UUID(int=7),
    prices=[Price(Decimal("1.10")), Price(Decimal(2), "USD")],
    placed=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    owner=UserId("u1"),
    colour=Colour.BLUE,
    by_level={Level.HIGH: (1, "a")},
    wait=timedelta(seconds=1.5),
    tags=frozenset({"x", "y"}),
    raw=b"\x00\xff",
    parent=Order(UUID(int=8), [], datetime(2026, 1, 1, tzinfo=UTC), UserId("u2")),
)


def there_and_back(value: object, hint: object) -> object:
    payload = CONVERTER.to_payload(value)
    return CONVERTER.from_payload(Payload.FromString(payload.SerializeToString()), hint)


@pytest.mark.parametrize(
    "value,hint",
    [
        (None, None),
        (None, type(None)),
        (None, int | None),
        (b"\x00\x01", bytes),
        (b"\x00\x01", bytes | None),
        (b"\x00\x01", None),
        (True, bool),
        (3, int),
        (2**63, int),
        (1.5, float),
        ("hé", str),
        ([1, "a", None], list[Any]),
        ([1, 2], Sequence[int]),
        ((1, 2), tuple[int, ...]),
        ((1, "a"), tuple[int, str]),
        ({1, 2}, set[int]),
        ({"a": [1]}, dict[str, list[int]]),
        ({1: "a"}, dict[int, str]),
        ({True: 1}, dict[bool, int]),
        ({UUID(int=1): 1}, dict[UUID, int]),
        ({"1": 1}, dict[str, int]),
        (Colour.RED, Colour),
        (Level.HIGH, Level),
        (Colour.RED, Literal[Colour.RED]),
        (datetime(2026, 1, 1, tzinfo=UTC), datetime),
        (date(2026, 1, 1), date),
        (time(1, 2, 3), time),
        (timedelta(days=2, microseconds=3), timedelta),
        (UUID(int=3), UUID),
        (Decimal("0.10"), Decimal),
        (Path("/a/b"), Path),
        (ORDER, Order),
        ([ORDER], list[Order]),
        (Box(Price(Decimal(1)), [Price(Decimal(2))]), Box[Price]),
        ({"title": "M", "released": date(2000, 1, 1)}, Movie),
        (Point(1, 2.0), Point),
        (Address(street="s", since=date(2020, 1, 1)), Address),
        ([Address(street="s", since=date(2020, 1, 1))], list[Address]),
        (StrictAddress(since=date(2020, 1, 1)), StrictAddress),
        (WorkflowExecution(workflow_id="w", run_id="r"), WorkflowExecution),
        (WorkflowExecution(workflow_id="w", run_id="r"), None),
        (Duration(seconds=2), Duration),
        (UserId("u"), UserId),
        (5, Annotated[int, "unit"]),
        ([1, "a", 2.5], list[int | str | float]),
        (Payload(data=b"as it is"), Payload),
    ],
)
def test_value_with_its_hint_comes_back_equal(value: object, hint: object):
    assert there_and_back(value, hint) == value


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(-1, 1),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_value_without_hint_comes_back_equal(value: object):
    assert there_and_back(value, None) == value


@pytest.mark.parametrize(
    "value,encoding",
    [
        (None, b"binary/null"),
        (b"x", b"binary/plain"),
        (bytearray(b"x"), b"binary/plain"),
        (Duration(seconds=1), b"json/protobuf"),
        ("x", b"json/plain"),
    ],
)
def test_encoding_of_value_is_its_first_converter(value: object, encoding: bytes):
    assert CONVERTER.to_payload(value).metadata["encoding"] == encoding


@pytest.mark.parametrize(
    "value,path,type_name",
    [
        (object(), "$", "object"),
        ({"a": [1, object()]}, "$.a[1]", "object"),
        (Box(Box({"k": print})), "$.content.content.k", "builtin_function_or_method"),
        ({"n": 2**70}, "$.n", "int"),
        ("\ud800", "$", "str"),
        ({"a": {(1, 2): 3}}, "$.a", "dict"),
        (math.nan, "$", "float"),
        ({"a": None, "b": [math.inf]}, "$.b[0]", "float"),
        (Price(Decimal(1), object()), "$.currency", "object"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_encode_value_without_encoding_names_type_and_path(
    value: object, path: str, type_name: str
):
    with pytest.raises(PayloadEncodeError) as caught:
        CONVERTER.to_payload(value)
    assert (caught.value.path, caught.value.type_name) == (path, type_name)


def test_encode_value_that_contains_itself_is_an_error():
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(PayloadEncodeError):
        CONVERTER.to_payload(circle)


@pytest.mark.parametrize(
    "value,hint,path,reason",
    [
        ("x", int, "$", "found a string"),
        (True, int, "$", "found a boolean"),
        (1, bool, "$", "found a number"),
        (1.5, int, "$", "found a number with a fraction or an exponent"),
        (None, int, "$", "found null"),
        (b"x", int, "$", "found bytes"),
        (1, bytes, "$", "found a number"),
        ([1, "x"], list[int], "$[1]", "found a string"),
        ({"a": [{}]}, dict[str, list[Price]], "$.a[0]", "'amount' is missing"),
        ({"content": {"amount": "x"}}, Box[Price], "$.content.amount", "'x' is not a number"),
        ("green", Colour, "$", "'green' is not a valid Colour"),
        (b"red", Colour, "$", "b'red' is not a valid Colour"),
        ("GBP", Literal["EUR"], "$", "found 'GBP'"),
        (1, Literal[True], "$", "found 1"),
        ([1], tuple[int, str], "$", "found 1 items, expected 2"),
        ("yesterday", datetime, "$", "Invalid isoformat string: 'yesterday'"),
        ({"x": 1}, int | str, "$", "found an object that no member accepts"),
        ({"title": "M"}, Movie, "$", "'released' is missing"),
        ({"a": 1}, DataConverter, "$", "found an object, and the type says not how to read it"),
    ],
)
def test_decode_other_than_the_hint_names_path_and_reason(
    value: object, hint: object, path: str, reason: str
):
    with pytest.raises(PayloadDecodeError) as caught:
        there_and_back(value, hint)
    assert (caught.value.path, caught.value.reason) == (path, reason)


def test_decode_integer_beyond_64_bits_as_enum_is_a_decode_error():
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b"[%d]" % (2**70))
    with pytest.raises(PayloadDecodeError) as caught:
        CONVERTER.from_payload(payload, list[Level])
    assert (caught.value.path, caught.value.reason) == ("$[0]", f"{2**70} is not a valid Level")


def test_decode_pydantic_model_with_wrong_field_is_a_decode_error():
    with pytest.raises(PayloadDecodeError, match="since"):
        there_and_back({"street": "s"}, Address)


def test_decode_dataclass_ignores_unknown_keys_and_fills_defaults():
    assert there_and_back({"amount": "1", "new": 1}, Price) == Price(Decimal(1))


def test_private_dataclass_field_is_not_written():
    assert CONVERTER.to_payload(Hidden(1)).data == b'{"shown":1}'


def test_decode_broken_json_is_a_decode_error():
    with pytest.raises(PayloadDecodeError, match="not JSON"):
        CONVERTER.from_payload(Payload(metadata={"encoding": b"json/plain"}, data=b"{"))


def test_decode_unknown_encoding_is_a_decode_error():
    with pytest.raises(PayloadDecodeError, match="unknown encoding 'xml'"):
        CONVERTER.from_payload(Payload(metadata={"encoding": b"xml"}), str)


def test_union_members_in_another_order_are_preferred_in_that_order():
    assert there_and_back("2026-01-01", date | str) == date(2026, 1, 1)
    assert there_and_back("2026-01-01", str | date) == "2026-01-01"


def test_payloads_of_no_values_is_none_and_back_is_empty():
    assert CONVERTER.to_payloads([]) is None
    assert CONVERTER.from_payloads(None, [int]) == []


def test_payloads_with_fewer_and_more_values_than_hints_decode_what_is_there():
    payloads = CONVERTER.to_payloads([1, "a"])
    assert CONVERTER.from_payloads(payloads, [int]) == [1, "a"]
    assert CONVERTER.from_payloads(payloads, [int, str, date]) == [1, "a"]


def test_payloads_with_bad_value_names_its_number():
    with pytest.raises(PayloadEncodeError) as caught:
        CONVERTER.to_payloads([1, {"a": object()}])
    assert caught.value.path == "[1].a"


class ReversingCodec:
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"reversed"}, data=p.SerializeToString()[::-1])
            for p in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(payload.data[::-1]) for payload in payloads]


async def test_codec_hides_values_from_the_wire_and_gives_them_back():
    converter = DataConverter(codec=ReversingCodec())
    payloads = await converter.encode(["secret", 1])
    assert payloads is not None
    assert [p.metadata["encoding"] for p in payloads.payloads] == [b"reversed"] * 2
    assert await converter.decode(Payloads.FromString(payloads.SerializeToString())) == [
        "secret",
        1,
    ]


@pytest.mark.parametrize("hint", [set[object], frozenset[list[int]], dict[tuple[list[int]], int]])
def test_decode_what_no_set_or_dict_can_hold_is_a_decode_error(hint: object):
    value = {"[[1]]": 1} if "dict" in str(hint) else [[1]]
    with pytest.raises(PayloadDecodeError, match="unhashable"):
        there_and_back(value, hint)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[1]", b'{"workflowId": 5}', b"{"])
def test_decode_broken_protobuf_json_is_a_decode_error(data: bytes):
    metadata = {"encoding": b"json/protobuf", "messageType": b"aetheris.api.v1.WorkflowExecution"}
    with pytest.raises(PayloadDecodeError):
        CONVERTER.from_payload(Payload(metadata=metadata, data=data))
