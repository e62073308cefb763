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


def test_failure_of_a_group_tells_every_member_and_the_first_is_its_cause():
    first = ValueError("bad page")
    first.__cause__ = KeyError("page")
    inner = ExceptionGroup("inner", [ApplicationError("no such tool"), RuntimeError()])
    failure = to_failure(ExceptionGroup("tools failed", [first, inner]), CONVERTER)
    assert failure.message == (
        "tools failed (2 sub-exceptions): ValueError: bad page; ApplicationError: no such tool; "
        "RuntimeError"
    )
    assert failure.application_failure_info.type == "ExceptionGroup"
    assert failure.cause.message == "bad page"
    assert failure.cause.application_failure_info.type == "ValueError"
    assert failure.cause.cause.application_failure_info.type == "KeyError"


def test_failure_of_a_group_that_was_raised_from_something_keeps_that_cause():
    group = ExceptionGroup("both", [ValueError("one"), ValueError("two")])
    group.__cause__ = OSError("the cause")
    assert to_failure(group, CONVERTER).cause.message == "the cause"


@pytest.mark.parametrize("is_final", [True, False])
def test_failure_of_a_group_is_as_final_as_its_most_final_member(is_final: bool):
    members = [ValueError("one"), ApplicationError("two", non_retryable=is_final)]
    group = ExceptionGroup("outer", [ExceptionGroup("inner", members)])
    info = to_failure(group, CONVERTER).application_failure_info
    assert info.non_retryable is is_final


def test_failure_of_a_huge_group_is_bounded():
    deep: Exception = ValueError("at the bottom")
    for _ in range(2_000):
        members: list[Exception] = [deep]
        deep = ExceptionGroup("level", members)
    assert to_failure(deep, CONVERTER).message.endswith("ValueError: at the bottom")
    wide = to_failure(ExceptionGroup("wide", [ValueError("x" * 9_000)] * 3_000), CONVERTER)
    assert wide.message.endswith("...")
    assert wide.ByteSize() <= MAX_FAILURE_BYTES
    many = to_failure(ExceptionGroup("many", [ValueError(i) for i in range(21)]), CONVERTER)
    assert many.message.endswith("ValueError: 19; ...")


@pytest.mark.parametrize("kind", [ValueError, ApplicationError])
def test_failure_tells_what_was_noted_on_the_exception(kind: type[Exception]):
    error = kind("broken")
    error.add_note("while reading page 3")
    error.add_note("of report.pdf")
    assert to_failure(error, CONVERTER).message == ("broken\nwhile reading page 3\nof report.pdf")


@pytest.mark.parametrize("notes", ["text", [b"bytes"], [object], None, 5])
def test_failure_with_notes_of_a_wrong_type_is_recorded(notes: object):
    error = ValueError("broken")
    error.__notes__ = notes  # pyright: ignore[reportAttributeAccessIssue]
    assert to_failure(error, CONVERTER).message.startswith("broken")
