from binascii import crc32
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetheris.server.v1.token_pb2 import PageToken, TaskToken
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.rpc.tokens import LISTING_HISTORY, LISTING_WORKFLOWS, Tokens
from tests.support.messages import RUN_ID
from tests.support.secrets import SECRETS, TOKENS

HISTORY = frozenset({LISTING_HISTORY})
# It does not know what the others have sealed.
ANOTHER_HOST = Tokens(SECRETS)
PAGE = PageToken(listing=LISTING_HISTORY, run_id=RUN_ID, next_event_id=9)


def a_task_token(**fields: Any) -> TaskToken:
    given_: dict[str, Any] = {
        "namespace_id": "n",
        "workflow_id": "w",
        "run_id": RUN_ID,
        "scheduled_event_id": 5,
        "attempt": 2,
        **fields,
    }
    token = TaskToken(**given_)
    token.started_time.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC))
    return token


def test_task_token_comes_back() -> None:
    data = TOKENS.seal_task(a_task_token())
    assert TOKENS.open_task(data) == ANOTHER_HOST.open_task(data) == a_task_token()


@pytest.mark.parametrize("data", [b"", b"\1", b"\1abcd", b"\x00" * 40, b"\1" * 40])
def test_task_token_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^some\.field: "):
        TOKENS.open_task(data, "some.field")


@given(st.integers(0), st.integers(1, 255))
def test_task_token_with_one_byte_changed_is_refused(position: int, change: int) -> None:
    data = bytearray(TOKENS.seal_task(a_task_token()))
    data[position % len(data)] ^= change
    with pytest.raises(InvalidArgumentError):
        TOKENS.open_task(bytes(data))


@given(st.integers(0, 60))
def test_task_token_cut_short_is_refused(length: int) -> None:
    data = TOKENS.seal_task(a_task_token())
    with pytest.raises(InvalidArgumentError):
        TOKENS.open_task(data[: min(length, len(data) - 1)])


def test_token_of_another_cluster_is_refused() -> None:
    data = Tokens({1: bytes(32)}).seal_task(a_task_token())
    with pytest.raises(InvalidArgumentError, match="of another cluster"):
        TOKENS.open_task(data)


def test_token_of_an_earlier_version_is_refused() -> None:
    body = a_task_token().SerializeToString()
    with pytest.raises(InvalidArgumentError, match="of an earlier version"):
        TOKENS.open_task(crc32(body).to_bytes(4) + body)


def test_token_for_one_use_is_none_for_another() -> None:
    with pytest.raises(InvalidArgumentError):
        TOKENS.open_page(TOKENS.seal_task(a_task_token()), HISTORY)
    with pytest.raises(InvalidArgumentError):
        TOKENS.open_task(TOKENS.seal_page(PAGE))


def test_token_from_before_a_new_secret_is_still_opened() -> None:
    data = TOKENS.seal_task(a_task_token())
    rotated = Tokens({**SECRETS, 2: bytes(32)})
    assert rotated.open_task(data) == a_task_token()
    assert rotated.seal_task(a_task_token())[0] == 2
    with pytest.raises(InvalidArgumentError):
        Tokens({2: bytes(32)}).open_task(data)


@pytest.mark.parametrize(
    "token",
    [
        a_task_token(namespace_id=""),
        a_task_token(workflow_id=""),
        a_task_token(run_id=""),
        a_task_token(run_id="r"),
        a_task_token(run_id=RUN_ID.replace("-", "")),
        a_task_token(attempt=-1),
        a_task_token(attempt=0),
        a_task_token(scheduled_event_id=-1),
    ],
)
def test_sealed_task_token_that_names_no_task_is_refused(token: TaskToken) -> None:
    with pytest.raises(InvalidArgumentError, match="names no task"):
        TOKENS.open_task(ANOTHER_HOST.seal_task(token))


@pytest.mark.parametrize("seconds", [-(2**63), 2**63 - 1, 253_402_300_800, -62_135_596_801])
def test_sealed_token_with_a_time_outside_of_the_calendar_is_refused(seconds: int) -> None:
    task, page = a_task_token(), PageToken(listing=LISTING_HISTORY)
    task.started_time.seconds = page.start_time.seconds = seconds
    with pytest.raises(InvalidArgumentError, match=r"^task_token: "):
        TOKENS.open_task(ANOTHER_HOST.seal_task(task))
    with pytest.raises(InvalidArgumentError, match=r"^page_token: "):
        TOKENS.open_page(TOKENS.seal_page(page), HISTORY)


def test_page_token_comes_back_for_the_same_query() -> None:
    assert TOKENS.open_page(TOKENS.seal_page(PAGE), HISTORY) == PAGE
    assert TOKENS.open_page(TOKENS.seal_page(PAGE, b"n", b""), HISTORY, b"n", b"") == PAGE


@pytest.mark.parametrize("query", [(), (b"n",), (b"n", b"g"), (b"nf", b""), (b"", b"nf")])
def test_page_token_of_another_query_is_refused(query: tuple[bytes, ...]) -> None:
    data = TOKENS.seal_page(PAGE, b"n", b"f")
    with pytest.raises(InvalidArgumentError, match="for the same use"):
        TOKENS.open_page(data, HISTORY, *query)


def test_page_token_of_one_of_several_listings_comes_back() -> None:
    token = PageToken(listing=LISTING_WORKFLOWS, last_key="r")
    listings = frozenset({LISTING_HISTORY, LISTING_WORKFLOWS})
    assert TOKENS.open_page(TOKENS.seal_page(token), listings) == token


def test_page_token_that_is_empty_is_the_first_page() -> None:
    assert TOKENS.open_page(b"", HISTORY) is None


def test_page_token_of_another_listing_is_refused() -> None:
    data = TOKENS.seal_page(PageToken(listing=LISTING_WORKFLOWS))
    with pytest.raises(InvalidArgumentError, match=r"^page_token: .*'workflows'.*'history'"):
        TOKENS.open_page(data, HISTORY)
