"""How failed attempts are tried again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from aetheris.api.v1 import common_pb2
from aetheris_client.options import wrong_kind
from aetheris_worker.durations import check_timeout


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

    initial_interval: timedelta = timedelta(seconds=1)
    backoff_coefficient: float = 2.0
    maximum_interval: timedelta | None = None
    maximum_attempts: int = 0
    non_retryable_error_types: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.non_retryable_error_types, str):
            # A sequence of strings as well, one for each letter.
            types = self.non_retryable_error_types
            raise wrong_kind("RetryPolicy", "non_retryable_error_types", types)
        check_timeout("initial_interval", self.initial_interval)
        check_timeout("maximum_interval", self.maximum_interval)
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
