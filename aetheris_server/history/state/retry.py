"""Whether, and when, a failed attempt is tried again."""

from datetime import datetime, timedelta
from typing import NamedTuple, assert_never

from aetheris.api.v1 import common_pb2, failure_pb2
from aetheris_server.history.times import (
    MAX_DURATION,
    ZERO,
    from_duration,
    is_over_maximum,
    to_duration,
)

DEFAULT_INITIAL_INTERVAL = timedelta(seconds=1)
DEFAULT_BACKOFF_COEFFICIENT = 2.0
_MAXIMUM_INTERVAL_FACTOR = 100
_DEFAULT_POLICY = common_pb2.RetryPolicy(
    initial_interval=to_duration(DEFAULT_INITIAL_INTERVAL),
    backoff_coefficient=DEFAULT_BACKOFF_COEFFICIENT,
    maximum_interval=to_duration(DEFAULT_INITIAL_INTERVAL * _MAXIMUM_INTERVAL_FACTOR),
)
_TIMEOUT_TYPE_PREFIX = "AetherisTimeout:"


class RetryDecision(NamedTuple):
    """The answer: the next attempt's due time, or None and the reason."""

    next_attempt_time: datetime | None
    state: "failure_pb2.RetryState.ValueType"


def decide_retry(
    policy: common_pb2.RetryPolicy,
    failure: failure_pb2.Failure,
    attempt: int,
    expiration_time: datetime | None,
    cancel_requested: bool,
    now: datetime,
) -> RetryDecision:
    """Judge a failed attempt by its policy.

    Args:
        policy: As filled in by `fill_policy`.
        failure: What went wrong.
        attempt: The one that failed, from 1.
        expiration_time: When all attempts must be over; None is never.
        cancel_requested: Whether the work was asked to cancel, which ends the retries.
        now: When the attempt failed; the wait is counted from here.
    """
    if cancel_requested:
        return RetryDecision(None, failure_pb2.RETRY_STATE_CANCEL_REQUESTED)
    if is_non_retryable(policy, failure):
        return RetryDecision(None, failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE)
    if policy.maximum_attempts and attempt >= policy.maximum_attempts:
        return RetryDecision(None, failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED)
    next_attempt_time = now + _interval(policy, failure, attempt)
    if expiration_time is not None and next_attempt_time >= expiration_time:
        return RetryDecision(None, failure_pb2.RETRY_STATE_TIMEOUT)
    return RetryDecision(next_attempt_time, failure_pb2.RETRY_STATE_IN_PROGRESS)


def fill_policy(given: common_pb2.RetryPolicy) -> common_pb2.RetryPolicy:
    """The policy with its gaps filled in: 1 s, doubling, at most 100 times the first wait."""
    policy = common_pb2.RetryPolicy()
    if not given.ByteSize():
        # Nearly all.
        policy.CopyFrom(_DEFAULT_POLICY)
        return policy
    policy.CopyFrom(given)
    if not from_duration(policy.initial_interval):
        policy.initial_interval.CopyFrom(to_duration(DEFAULT_INITIAL_INTERVAL))
    if not policy.backoff_coefficient:
        policy.backoff_coefficient = DEFAULT_BACKOFF_COEFFICIENT
    if not from_duration(policy.maximum_interval):
        policy.maximum_interval.CopyFrom(
            to_duration(from_duration(policy.initial_interval) * _MAXIMUM_INTERVAL_FACTOR)
        )
    return policy


def find_policy_fault(policy: common_pb2.RetryPolicy) -> str | None:
    """What is wrong with a policy that was given; None if nothing."""
    for name in ("initial_interval", "maximum_interval"):
        interval = getattr(policy, name)
        if from_duration(interval) < ZERO:
            return f"retry_policy.{name} is negative"
        if is_over_maximum(interval):
            return f"retry_policy.{name} is {interval.seconds} s, expected at most {MAX_DURATION}"
    if policy.backoff_coefficient and not 1 <= policy.backoff_coefficient < float("inf"):
        return (
            f"retry_policy.backoff_coefficient is {policy.backoff_coefficient}, expected at least 1"
        )
    if policy.maximum_attempts < 0:
        return f"retry_policy.maximum_attempts is {policy.maximum_attempts}, expected 0 or more"
    maximum_interval = from_duration(policy.maximum_interval)
    if maximum_interval and maximum_interval < from_duration(policy.initial_interval):
        return "retry_policy.maximum_interval is less than initial_interval"
    return None


def is_non_retryable(policy: common_pb2.RetryPolicy, failure: failure_pb2.Failure) -> bool:
    """Whether the failure itself, or its type by the policy, rules out another attempt."""
    kind = failure.WhichOneof("failure_info")
    match kind:
        case "application_failure_info":
            info = failure.application_failure_info
            return info.non_retryable or info.type in policy.non_retryable_error_types
        case "timeout_failure_info":
            timeout_type = failure.timeout_failure_info.timeout_type
            if timeout_type not in (
                failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE,
                failure_pb2.TIMEOUT_TYPE_HEARTBEAT,
            ):
                return True
            name = failure_pb2.TimeoutType.Name(timeout_type).removeprefix("TIMEOUT_TYPE_")
            return _TIMEOUT_TYPE_PREFIX + name in policy.non_retryable_error_types
        case "server_failure_info":
            return failure.server_failure_info.non_retryable
        case "terminated_failure_info" | "cancelled_failure_info":
            return True
        case "activity_failure_info" | "child_workflow_failure_info" | None:
            return False
        case _:
            assert_never(kind)


def _interval(
    policy: common_pb2.RetryPolicy, failure: failure_pb2.Failure, attempt: int
) -> timedelta:
    if failure.application_failure_info.HasField("next_retry_delay"):
        return max(ZERO, from_duration(failure.application_failure_info.next_retry_delay))
    initial = from_duration(policy.initial_interval).total_seconds()
    maximum = from_duration(policy.maximum_interval).total_seconds()
    try:
        seconds = initial * policy.backoff_coefficient ** (attempt - 1)
    except OverflowError:
        seconds = maximum
    return timedelta(seconds=min(seconds, maximum))
