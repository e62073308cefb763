from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetheris.server.v1.token_pb2 import PageToken, TaskToken
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.rpc.tokens import (
    LISTING_HISTORY,
    LISTING_WORKFLOWS,
    decode_page_token,
    decode_task_token,
    encode_page_token,
    encode_task_token,
)


def a_task_token() -> TaskToken:
    token = TaskToken(
        namespace_id="n", workflow_id="w", run_id="r", scheduled_event_id=5, attempt=2, start_id="s"
    )
    token.started_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    return token


def test_task_token_comes_back() -> None:
    assert decode_task_token(encode_task_token(a_task_token())) == a_task_token()


@pytest.mark.parametrize("data", [b"", b"abc", b"abcd", b"\x00" * 40])
def test_task_token_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^some\.field: "):
        decode_task_token(data, "some.field")


@given(st.integers(0), st.integers(1, 255))
def test_task_token_with_one_byte_changed_is_refused(position: int, change: int) -> None:
    data = bytearray(encode_task_token(a_task_token()))
    data[position % len(data)] ^= change
    with pytest.raises(InvalidArgumentError):
        decode_task_token(bytes(data))


@given(st.integers(0, 60))
def test_task_token_cut_short_is_refused(length: int) -> None:
    data = encode_task_token(a_task_token())
    with pytest.raises(InvalidArgumentError):
        decode_task_token(data[: min(length, len(data) - 1)])


def test_task_token_without_a_run_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="names no run"):
        decode_task_token(encode_task_token(TaskToken(workflow_id="w")))


def test_page_token_comes_back() -> None:
    token = PageToken(listing=LISTING_HISTORY, run_id="r", next_event_id=9)
    assert decode_page_token(encode_page_token(token), LISTING_HISTORY) == token


def test_page_token_of_one_of_several_listings_comes_back() -> None:
    token = PageToken(listing=LISTING_WORKFLOWS, last_key="r")
    data = encode_page_token(token)
    assert decode_page_token(data, LISTING_HISTORY, LISTING_WORKFLOWS) == token


def test_page_token_that_is_empty_is_the_first_page() -> None:
    assert decode_page_token(b"", LISTING_HISTORY) is None


def test_page_token_of_another_listing_is_refused() -> None:
    data = encode_page_token(PageToken(listing=LISTING_WORKFLOWS))
    with pytest.raises(InvalidArgumentError, match=r"^page_token: .*'workflows'.*'history'"):
        decode_page_token(data, LISTING_HISTORY)


def test_page_token_that_is_corrupt_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="corrupt"):
        decode_page_token(b"12345678", LISTING_HISTORY)
