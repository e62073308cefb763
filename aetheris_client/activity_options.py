"""How an activity is given out and tried again: as it is, and what of it is to change."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.field_mask_pb2 import FieldMask

from aetheris.api.v1 import workflow_pb2
from aetheris_client.options import check_options
from aetheris_client.times import read_duration

_TIMEOUTS = (
    "schedule_to_close_timeout",
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "heartbeat_timeout",
)
_INTERVALS = ("initial_interval", "maximum_interval")


@dataclass(frozen=True, slots=True)
class ActivityOptions:
    """Those of an open activity; a timeout is None where there is none.

    Attributes:
        maximum_attempts: 0 is any number.
        non_retryable_error_types: Types of failures after which there is no other attempt.
    """

    task_queue: str
    schedule_to_close_timeout: timedelta | None
    schedule_to_start_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    initial_interval: timedelta | None
    backoff_coefficient: float
    maximum_interval: timedelta | None
    maximum_attempts: int
    non_retryable_error_types: Sequence[str]

    @classmethod
    def from_proto(cls, options: workflow_pb2.ActivityOptions) -> "ActivityOptions":
        policy = options.retry_policy
        return cls(
            task_queue=options.task_queue.name,
            schedule_to_close_timeout=read_duration(options, "schedule_to_close_timeout"),
            schedule_to_start_timeout=read_duration(options, "schedule_to_start_timeout"),
            start_to_close_timeout=read_duration(options, "start_to_close_timeout"),
            heartbeat_timeout=read_duration(options, "heartbeat_timeout"),
            initial_interval=read_duration(policy, "initial_interval"),
            backoff_coefficient=policy.backoff_coefficient,
            maximum_interval=read_duration(policy, "maximum_interval"),
            maximum_attempts=policy.maximum_attempts,
            non_retryable_error_types=tuple(policy.non_retryable_error_types),
        )


@dataclass(frozen=True, slots=True)
class ActivityOptionsUpdate:
    """New values of some options; None leaves one as it is, and a timeout of zero takes it away."""

    task_queue: str | None = None
    schedule_to_close_timeout: timedelta | None = None
    schedule_to_start_timeout: timedelta | None = None
    start_to_close_timeout: timedelta | None = None
    heartbeat_timeout: timedelta | None = None
    initial_interval: timedelta | None = None
    backoff_coefficient: float | None = None
    maximum_interval: timedelta | None = None
    maximum_attempts: int | None = None
    non_retryable_error_types: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_options(
            "update_activity_options",
            task_queue=self.task_queue,
            schedule_to_close_timeout=self.schedule_to_close_timeout,
            schedule_to_start_timeout=self.schedule_to_start_timeout,
            start_to_close_timeout=self.start_to_close_timeout,
            heartbeat_timeout=self.heartbeat_timeout,
            initial_interval=self.initial_interval,
            backoff_coefficient=self.backoff_coefficient,
            maximum_interval=self.maximum_interval,
            maximum_attempts=self.maximum_attempts,
            non_retryable_error_types=self.non_retryable_error_types,
        )

    def to_proto(self) -> tuple[workflow_pb2.ActivityOptions, FieldMask]:
        """The values, and the mask that names those that are given."""
        options = workflow_pb2.ActivityOptions()
        paths: list[str] = []
        if self.task_queue is not None:
            options.task_queue.name = self.task_queue
            paths.append("task_queue")
        for name in _TIMEOUTS:
            timeout: timedelta | None = getattr(self, name)
            if timeout is not None:
                paths.append(name)
                if timeout:
                    getattr(options, name).FromTimedelta(timeout)
        paths += self._write_policy(options)
        return options, FieldMask(paths=paths)

    def _write_policy(self, options: workflow_pb2.ActivityOptions) -> Sequence[str]:
        policy = options.retry_policy
        names: list[str] = []
        for name in _INTERVALS:
            interval: timedelta | None = getattr(self, name)
            if interval is not None:
                getattr(policy, name).FromTimedelta(interval)
                names.append(name)
        if self.backoff_coefficient is not None:
            policy.backoff_coefficient = self.backoff_coefficient
            names.append("backoff_coefficient")
        if self.maximum_attempts is not None:
            policy.maximum_attempts = self.maximum_attempts
            names.append("maximum_attempts")
        if self.non_retryable_error_types is not None:
            policy.non_retryable_error_types.extend(self.non_retryable_error_types)
            names.append("non_retryable_error_types")
        return [f"retry_policy.{name}" for name in names]
