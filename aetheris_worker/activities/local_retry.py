"""Whether, and when, a failed attempt of a local activity is tried again: as the server decides it
for others.
"""

from datetime import timedelta
from typing import Final

from aetheris.api.v1 import failure_pb2
from aetheris.api.v1.failure_pb2 import Failure, RetryState, TimeoutType
from aetheris_client.retry import RetryPolicy

_DEFAULT: Final = RetryPolicy()
_MAXIMUM_INTERVAL_FACTOR: Final = 100
_TIMEOUT_TYPE_PREFIX: Final = "AetherisTimeout:"


def decide_retry(
    policy: RetryPolicy | None, failure: Failure, attempt: int, seconds_left: float
) -> float | RetryState.ValueType:
    """Seconds until the next attempt, as a float; or the state that rules one out.

    Args:
        policy: The default one where None.
        failure: What went wrong.
        attempt: The one that failed, from 1.
        seconds_left: For all attempts.
    """
    policy = policy or _DEFAULT
    if _is_non_retryable(policy, failure):
        return failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE
    if policy.maximum_attempts and attempt >= policy.maximum_attempts:
        return failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    interval = _interval(policy, failure, attempt)
    return failure_pb2.RETRY_STATE_TIMEOUT if interval >= seconds_left else interval


def timeout_failure(timeout_type: TimeoutType.ValueType, cause: Failure | None) -> Failure:
    """What is said of an attempt, or an activity, whose time is up."""
    name = TimeoutType.Name(timeout_type).removeprefix("TIMEOUT_TYPE_")
    failure = Failure(message=f"local activity {name} timeout", source="worker")
    failure.timeout_failure_info.timeout_type = timeout_type
    if cause is not None:
        failure.cause.CopyFrom(cause)
    return failure


def _is_non_retryable(policy: RetryPolicy, failure: Failure) -> bool:
    if failure.HasField("application_failure_info"):
        info = failure.application_failure_info
        return info.non_retryable or info.type in policy.non_retryable_error_types
    if failure.HasField("timeout_failure_info"):
        timeout_type = failure.timeout_failure_info.timeout_type
        name = TimeoutType.Name(timeout_type).removeprefix("TIMEOUT_TYPE_")
        return (
            timeout_type != failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
            or _TIMEOUT_TYPE_PREFIX + name in policy.non_retryable_error_types
        )
    return failure.HasField("cancelled_failure_info") or failure.HasField("terminated_failure_info")


def _interval(policy: RetryPolicy, failure: Failure, attempt: int) -> float:
    info = failure.application_failure_info
    if info.HasField("next_retry_delay"):
        return max(0.0, info.next_retry_delay.ToTimedelta().total_seconds())
    initial = policy.initial_interval.total_seconds()
    maximum = (policy.maximum_interval or _times(policy.initial_interval)).total_seconds()
    try:
        seconds = initial * policy.backoff_coefficient ** (attempt - 1)
    except OverflowError:
        return maximum
    return min(seconds, maximum)


def _times(interval: timedelta) -> timedelta:
    return interval * _MAXIMUM_INTERVAL_FACTOR
