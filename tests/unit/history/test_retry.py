from datetime import timedelta

import pytest
from google.protobuf import duration_pb2

from aetheris.api.v1 import common_pb2, failure_pb2
from aetheris_server.history.state.retry import (
    RetryDecision,
    decide_retry,
    fill_policy,
    find_policy_fault,
    is_non_retryable,
)
from tests.support.runs import BEGIN, application_failure, seconds

_POLICY = fill_policy(common_pb2.RetryPolicy())


def _decide(
    policy: common_pb2.RetryPolicy = _POLICY,
    failure: failure_pb2.Failure | None = None,
    attempt: int = 1,
    expires_after: float | None = None,
) -> RetryDecision:
    expiration = BEGIN + timedelta(seconds=expires_after) if expires_after is not None else None
    return decide_retry(policy, failure or application_failure(), attempt, expiration, False, BEGIN)


def _timeout(timeout_type: failure_pb2.TimeoutType.ValueType) -> failure_pb2.Failure:
    return failure_pb2.Failure(
        timeout_failure_info=failure_pb2.TimeoutFailureInfo(timeout_type=timeout_type)
    )


def _server_failure(non_retryable: bool) -> failure_pb2.Failure:
    return failure_pb2.Failure(
        server_failure_info=failure_pb2.ServerFailureInfo(non_retryable=non_retryable)
    )


@pytest.mark.parametrize(
    "attempt, wait", [(1, 1), (2, 2), (3, 4), (7, 64), (8, 100), (100, 100), (5000, 100)]
)
def test_retry_waits_double_up_to_the_maximum(attempt: int, wait: float) -> None:
    assert _decide(attempt=attempt).next_attempt_time == BEGIN + timedelta(seconds=wait)


def test_retry_of_own_policy_is_kept() -> None:
    policy = fill_policy(
        common_pb2.RetryPolicy(
            initial_interval=seconds(3), backoff_coefficient=1.5, maximum_interval=seconds(4)
        )
    )
    assert _decide(policy, attempt=1).next_attempt_time == BEGIN + timedelta(seconds=3)
    assert _decide(policy, attempt=2).next_attempt_time == BEGIN + timedelta(seconds=4)


def test_retry_maximum_interval_follows_the_initial_one() -> None:
    policy = fill_policy(common_pb2.RetryPolicy(initial_interval=seconds(3)))
    assert policy.maximum_interval == seconds(300)


@pytest.mark.parametrize("attempt, is_last", [(1, False), (2, False), (3, True), (4, True)])
def test_retry_ends_with_the_last_attempt(attempt: int, is_last: bool) -> None:
    policy = fill_policy(common_pb2.RetryPolicy(maximum_attempts=3))
    decision = _decide(policy, attempt=attempt)
    assert (decision.next_attempt_time is None) is is_last
    if is_last:
        assert decision.state == failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED


@pytest.mark.parametrize("expires_after, fits", [(1, False), (1.000001, True), (0.5, False)])
def test_retry_must_begin_before_the_expiration(expires_after: float, fits: bool) -> None:
    decision = _decide(expires_after=expires_after)
    assert (decision.next_attempt_time is not None) is fits
    if not fits:
        assert decision.state == failure_pb2.RETRY_STATE_TIMEOUT


@pytest.mark.parametrize("delay, wait", [(0, 0), (7, 7), (5000, 5000), (-3, 0)])
def test_retry_delay_of_the_failure_overrides_the_policy(delay: float, wait: float) -> None:
    failure = application_failure(next_retry_delay=seconds(delay))
    assert _decide(failure=failure).next_attempt_time == BEGIN + timedelta(seconds=wait)


def test_retry_delay_beyond_the_calendar_is_cut() -> None:
    failure = application_failure(next_retry_delay=duration_pb2.Duration(seconds=2**62))
    decision = _decide(failure=failure)
    assert decision.next_attempt_time is not None
    assert decision.next_attempt_time.year == 2126


def test_retry_after_request_to_cancel_ends() -> None:
    decision = decide_retry(_POLICY, application_failure(), 1, None, True, BEGIN)
    assert decision == (None, failure_pb2.RETRY_STATE_CANCEL_REQUESTED)


@pytest.mark.parametrize(
    "failure, expected",
    [
        (application_failure(), False),
        (application_failure("Fatal"), True),
        (application_failure(non_retryable=True), True),
        (_timeout(failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE), False),
        (_timeout(failure_pb2.TIMEOUT_TYPE_HEARTBEAT), True),
        (_timeout(failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START), True),
        (_timeout(failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE), True),
        (_server_failure(non_retryable=True), True),
        (_server_failure(non_retryable=False), False),
        (failure_pb2.Failure(cancelled_failure_info=failure_pb2.CancelledFailureInfo()), True),
        (failure_pb2.Failure(terminated_failure_info=failure_pb2.TerminatedFailureInfo()), True),
        (failure_pb2.Failure(message="of no kind"), False),
    ],
)
def test_is_non_retryable_by_kind_of_failure(failure: failure_pb2.Failure, expected: bool) -> None:
    policy = common_pb2.RetryPolicy(
        non_retryable_error_types=["Fatal", "AetherisTimeout:HEARTBEAT"]
    )
    assert is_non_retryable(policy, failure) is expected


@pytest.mark.parametrize(
    "policy, word",
    [
        (common_pb2.RetryPolicy(initial_interval=seconds(-1)), "initial_interval"),
        (common_pb2.RetryPolicy(maximum_interval=seconds(-1)), "maximum_interval"),
        (common_pb2.RetryPolicy(backoff_coefficient=0.9), "backoff_coefficient"),
        (common_pb2.RetryPolicy(backoff_coefficient=float("inf")), "backoff_coefficient"),
        (common_pb2.RetryPolicy(maximum_attempts=-1), "maximum_attempts"),
        (
            common_pb2.RetryPolicy(initial_interval=seconds(2), maximum_interval=seconds(1)),
            "maximum_interval",
        ),
    ],
)
def test_policy_fault_names_the_field(policy: common_pb2.RetryPolicy, word: str) -> None:
    assert word in (find_policy_fault(policy) or "")


def test_policy_empty_has_no_fault() -> None:
    assert find_policy_fault(common_pb2.RetryPolicy()) is None
