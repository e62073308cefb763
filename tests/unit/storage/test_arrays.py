"""Each array is read back by the driver's own loader for its type."""

import struct
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.adapt import Transformer

from aetheris_server.storage import arrays

BOOL: Final = 1000
BYTEA: Final = 1001
INT2: Final = 1005
INT4: Final = 1007
TEXT: Final = 1009
INT8: Final = 1016
TIMESTAMPTZ: Final = 1185
UUIDS: Final = 2951
JSONB: Final = 3807


def load(oid: int, array: bytes) -> list[Any]:
    return Transformer().get_loader(oid, pq.Format.BINARY).load(array)


def integers(bits: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))


@given(integers(16), integers(32), integers(64), st.lists(st.booleans()))
def test_fixed_arrays_load_as_they_were(
    twos: list[int], fours: list[int], eights: list[int], bools: list[bool]
) -> None:
    assert load(INT2, arrays.int2_array(twos)) == twos
    assert load(INT4, arrays.int4_array(fours)) == fours
    assert load(INT8, arrays.int8_array(eights)) == eights
    assert load(BOOL, arrays.bool_array(bools)) == bools


@given(st.lists(st.none() | st.binary()), st.lists(st.none() | st.text()))
def test_variable_arrays_load_as_they_were(
    blobs: list[bytes | None], texts: list[str | None]
) -> None:
    assert load(BYTEA, arrays.bytea_array(blobs)) == blobs
    assert load(TEXT, arrays.text_array(texts)) == texts


@given(st.lists(st.none() | st.uuids()))
def test_uuid_array_loads_as_it_was_with_empty_as_null(uuids: list[UUID | None]) -> None:
    texts = ["" if value is None else str(value) for value in uuids]

    assert load(UUIDS, arrays.uuid_array(texts)) == uuids


@given(st.lists(st.none() | st.datetimes(timezones=st.just(UTC))))
def test_timestamp_array_keeps_every_microsecond(times: list[datetime | None]) -> None:
    assert load(TIMESTAMPTZ, arrays.timestamp_array(times)) == times


def test_jsonb_array_loads_as_it_was() -> None:
    assert load(JSONB, arrays.jsonb_array([b'{"a": [1]}', None])) == [{"a": [1]}, None]


def test_integer_out_of_range_is_refused() -> None:
    with pytest.raises(struct.error):
        arrays.int4_array([2**31])


@pytest.mark.parametrize("text", ["order-1", "0192f3a0", "0192f3a0-0000-7000-8000-00000000000z"])
def test_uuid_array_text_that_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        arrays.uuid_array([text])
