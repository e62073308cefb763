"""How failed attempts are tried again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from aetheris.api.v1 import common_pb2
from aetheris_client.options import wrong_kind
from aetheris_client.times import from_duration

MAX_INTERVAL: Final = timedelta(days=36_525)
_INITIAL_INTERVAL: Final = timedelta(seconds=1)
_BACKOFF_COEFFICIENT: Final = 2.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How failed attempts are tried again; the defaults are the server's.

    Attributes:
        initial_interval: Wait before the second attempt.
        backoff_coefficient: Each further wait is the last one times this; at least 1.
        maximum_interval: No wait is longer; 100 times the initial interval where None.
        maximum_attempts: Attempts in all; 0 is no limit.
        non_retryable_error_types: Application error types, or `AetherisTimeout:<kind>`, that end
            the retries at once.
    """

    initial_interval: timedelta = _INITIAL_INTERVAL
    backoff_coefficient: float = _BACKOFF_COEFFICIENT
    maximum_interval: timedelta | None = None
    maximum_attempts: int = 0
    non_retryable_error_types: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.non_retryable_error_types, str):
            # A sequence of strings as well, one for each letter.
            types = self.non_retryable_error_types
            raise wrong_kind("RetryPolicy", "non_retryable_error_types", types)
        _check_interval("initial_interval", self.initial_interval)
        if self.maximum_interval is not None:
            _check_interval("maximum_interval", self.maximum_interval)
        # NaN is not either.
        if not 1 <= self.backoff_coefficient < math.inf:
            raise ValueError(
                f"backoff_coefficient: {self.backoff_coefficient}, expected at least 1, and finite"
            )
        if self.maximum_interval is not None and self.maximum_interval < self.initial_interval:
            raise ValueError(
                f"maximum_interval: {self.maximum_interval}, "
                f"expected at least initial_interval ({self.initial_interval})"
            )
        if self.maximum_attempts < 0:
            raise ValueError(f"maximum_attempts: {self.maximum_attempts}, expected at least 0")

    @classmethod
    def from_proto(cls, policy: common_pb2.RetryPolicy) -> "RetryPolicy":
        """The same policy; what it leaves out is the server's default."""
        return cls(
            initial_interval=from_duration(policy.initial_interval) or _INITIAL_INTERVAL,
            backoff_coefficient=policy.backoff_coefficient or _BACKOFF_COEFFICIENT,
            maximum_interval=from_duration(policy.maximum_interval) or None,
            maximum_attempts=policy.maximum_attempts,
            non_retryable_error_types=tuple(policy.non_retryable_error_types),
        )

    def to_proto(self) -> common_pb2.RetryPolicy:
        """The policy as the server wants it."""
        policy = common_pb2.RetryPolicy(
            backoff_coefficient=self.backoff_coefficient,
            maximum_attempts=self.maximum_attempts,
            non_retryable_error_types=self.non_retryable_error_types,
        )
        policy.initial_interval.FromTimedelta(self.initial_interval)
        if self.maximum_interval is not None:
            policy.maximum_interval.FromTimedelta(self.maximum_interval)
        return policy


def check_retry_policy(call: str, policy: object) -> None:
    """Refuse what is no policy; None is one that is not given.

    Raises:
        TypeError: Names the option and what was found.
    """
    if policy is not None and not isinstance(policy, RetryPolicy):
        raise TypeError(f"{call}: option 'retry_policy': expected a RetryPolicy, found {policy!r}")


def _check_interval(name: str, value: object) -> None:
    if not isinstance(value, timedelta):
        raise wrong_kind("RetryPolicy", name, value)
    if value <= timedelta(0):
        raise ValueError(f"{name}: {value}, expected more than zero")
    if value > MAX_INTERVAL:
        raise ValueError(f"{name}: {value}, expected at most {MAX_INTERVAL} (a hundred years)")
