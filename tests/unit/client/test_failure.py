"""Exceptions to failures and back."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1.common_pb2 import Payload, Payloads
from aetheris.api.v1.failure_pb2 import ApplicationFailureInfo, Failure, TimeoutFailureInfo
from aetheris_client import errors
from aetheris_client.converter import DataConverter
from aetheris_client.errors import (
    ActivityError,
    ApplicationError,
    CancelledError,
    ChildWorkflowError,
    FailureError,
    PayloadEncodeError,
    RetryState,
    ServerError,
    TerminatedError,
    TimeoutType,
)
from aetheris_client.failure import (
    MAX_CHAIN_LENGTH,
    MAX_FAILURE_BYTES,
    MAX_MESSAGE_BYTES,
    from_failure,
    to_failure,
)

CONVERTER = DataConverter.default()


def attributes(error: BaseException) -> dict[str, object]:
    return {"kind": type(error), **vars(error)}


@pytest.mark.parametrize(
    "error",
    [
        ApplicationError(
            "broken",
            1,
            {"a": [None]},
            type="Kind",
            non_retryable=True,
            next_retry_delay=timedelta(milliseconds=1500),
        ),
        ApplicationError("plain"),
        CancelledError("stopped", "detail"),
        TerminatedError("enough"),
        errors.TimeoutError(
            "late", type=TimeoutType.HEARTBEAT, last_heartbeat_details=[7], outcome_unknown=True
        ),
        ServerError("oops", non_retryable=True),
        ActivityError(
            "activity failed",
            scheduled_event_id=5,
            started_event_id=6,
            activity_type="charge",
            activity_id="1",
            identity="me",
            retry_state=RetryState.MAXIMUM_ATTEMPTS_REACHED,
        ),
        ChildWorkflowError(
            "child failed",
            namespace="n",
            workflow_id="w",
            run_id="r",
            workflow_type="T",
            initiated_event_id=3,
            started_event_id=4,
            retry_state=RetryState.TIMEOUT,
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_failure_error_there_and_back_keeps_every_attribute(error: FailureError):
    error.stack_trace, error.source = "line 1", "go-sdk"
    failure = Failure.FromString(to_failure(error, CONVERTER).SerializeToString())
    assert attributes(from_failure(failure, CONVERTER)) == attributes(error)


def test_failure_of_other_exception_is_application_failure_named_for_its_class():
    error = from_failure(to_failure(KeyError("k"), CONVERTER), CONVERTER)
    assert isinstance(error, ApplicationError)
    assert (error.type, error.message, error.source) == ("KeyError", "'k'", "aetheris-python")


def test_failure_of_asyncio_cancellation_is_cancelled():
    error = from_failure(to_failure(asyncio.CancelledError(), CONVERTER), CONVERTER)
    assert isinstance(error, CancelledError)
    assert error.message == "cancelled"


def raise_chain() -> None:
    try:
        raise ValueError("root")
    except ValueError as error:
        raise ApplicationError("middle") from error


def caught_chain() -> ActivityError:
    try:
        raise_chain()
    except ApplicationError as cause:
        error = ActivityError("outer")
        error.__cause__ = cause
        return error
    raise AssertionError


def test_failure_with_causes_keeps_chain_and_stack_traces():
    error = from_failure(to_failure(caught_chain(), CONVERTER), CONVERTER)
    assert isinstance(error.cause, ApplicationError)
    assert "raise_chain" in error.cause.stack_trace
    root = error.cause.cause
    assert isinstance(root, ApplicationError)
    assert (root.type, root.message, root.cause) == ("ValueError", "root", None)


def test_failure_recorded_again_is_the_same():
    recorded = to_failure(caught_chain(), CONVERTER)
    assert to_failure(from_failure(recorded, CONVERTER), CONVERTER) == recorded


def test_failure_of_raise_from_none_has_no_cause():
    error = ApplicationError("alone")
    error.__context__, error.__suppress_context__ = ValueError("hidden"), True
    assert not to_failure(error, CONVERTER).HasField("cause")


def test_failure_of_circular_or_endless_chain_ends():
    error = ApplicationError("0")
    error.__cause__ = error
    assert not to_failure(error, CONVERTER).HasField("cause")
    for number in range(MAX_CHAIN_LENGTH * 2):
        outer = ApplicationError(str(number))
        outer.__cause__ = error
        error = outer
    link: BaseException | None = from_failure(to_failure(error, CONVERTER), CONVERTER)
    length = 0
    while link is not None:
        link, length = link.__cause__, length + 1
    assert length == MAX_CHAIN_LENGTH


def test_failure_with_unreadable_details_keeps_their_payloads():
    detail = Payload(metadata={"encoding": b"other"}, data=b"?")
    info = ApplicationFailureInfo(details=Payloads(payloads=[detail]))
    failure = Failure(message="m", application_failure_info=info)
    error = from_failure(failure, CONVERTER)
    assert isinstance(error, ApplicationError)
    assert error.details == (detail,)
    error.source = ""
    assert to_failure(error, CONVERTER).application_failure_info == info


def test_failure_without_kind_is_an_application_error():
    assert isinstance(from_failure(Failure(message="m"), CONVERTER), ApplicationError)


def test_failure_with_number_of_a_newer_server_is_unspecified():
    info = TimeoutFailureInfo()
    info.MergeFromString(b"\x08\x63")
    error = from_failure(Failure(timeout_failure_info=info), CONVERTER)
    assert isinstance(error, errors.TimeoutError)
    assert error.type is TimeoutType.UNSPECIFIED


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no likeness")

    __hash__ = None  # pyright: ignore[reportAssignmentType]


class HalfMadeError(ApplicationError):
    def __init__(self) -> None:
        self.details = ()


def any_error(message: Any, *details: Any, **fields: Any) -> ApplicationError:
    """Of what the types forbid, but nothing checks."""
    return ApplicationError(message, *details, **fields)


@pytest.mark.parametrize(
    "error, message, kind",
    [
        (ValueError("a\udc80b"), "a\\udc80b", "ValueError"),
        (any_error("a\ud800"), "a\\ud800", ""),
        (
            UnspeakableError(),
            "<UnspeakableError: its text raised RuntimeError>",
            "UnspeakableError",
        ),
        (any_error(7, type=8), "7", "8"),
        (HalfMadeError(), "not recorded as it was: ", "HalfMadeError"),
        (any_error("m", object(), type="T"), "m (details left out: ", "T"),
        (any_error("m", type="T", next_retry_delay=5), "m (next_retry_delay left out: ", "T"),
        (any_error("m", "\udc80", type="\udc81"), "m (details left out: ", "\\udc81"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_failure_of_what_cannot_be_recorded_is_recorded_in_part(
    error: BaseException, message: str, kind: str
):
    failure = Failure.FromString(
        to_failure(error, CONVERTER, drops_details=True).SerializeToString()
    )
    assert failure.message.startswith(message)
    assert failure.application_failure_info.type == kind


def test_failure_with_attribute_of_wrong_type_keeps_message_and_retryability():
    error = any_error("m", non_retryable=True)
    error.details = 5  # pyright: ignore[reportAttributeAccessIssue]
    failure = to_failure(error, CONVERTER)
    assert failure.message.startswith("m (")
    assert failure.application_failure_info.non_retryable
    activity_error = ActivityError("a", activity_type=5)  # pyright: ignore[reportArgumentType]
    assert to_failure(activity_error, CONVERTER).message.startswith("a (not recorded as it was")


def test_failure_of_huge_exception_is_bounded():
    error = ApplicationError("é" * 10**6, b"x" * 10**6, type="T" * 10**6)
    error.stack_trace = "é" * 10**6
    for _ in range(MAX_CHAIN_LENGTH):
        outer = ApplicationError("é" * 10**6, type="Outer", non_retryable=True)
        outer.stack_trace = "é" * 10**6
        outer.__cause__ = error
        error = outer
    failure = to_failure(error, CONVERTER)
    assert failure.ByteSize() <= MAX_FAILURE_BYTES * 1.01
    assert len(failure.message.encode()) <= MAX_MESSAGE_BYTES
    assert failure.application_failure_info.non_retryable
    assert failure.cause.application_failure_info.type == "Outer"


def test_failure_with_too_large_details_says_that_they_are_left_out():
    failure = to_failure(ApplicationError("m", b"x" * 10**6), CONVERTER)
    assert failure.message.startswith("m (details left out: 10000")
    assert failure.ByteSize() < MAX_FAILURE_BYTES


def test_failure_whose_details_do_not_encode_raises_where_that_is_wanted():
    with pytest.raises(PayloadEncodeError):
        to_failure(any_error("m", object()), CONVERTER)
