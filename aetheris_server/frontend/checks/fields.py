# ruff: noqa: D103 - a check is named for what it checks
"""Checks of single fields. Each takes the field's path, for the error, and its value."""

import re
import uuid
from collections.abc import Sequence
from typing import Any, Protocol, assert_never

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from aetheris.api.v1 import common_pb2, failure_pb2
from aetheris_server.build_ids import BUILD_PREFIX
from aetheris_server.config import LimitSettings
from aetheris_server.errors import InvalidArgumentError

MAX_DURATION_SECONDS = 36_525 * 86_400
"""A hundred years, as history has it: longer ones it would cut."""

MAX_CAPABILITIES = 100
MAX_ERROR_TYPES = 100
MAX_PRIORITY_KEY = 5

_NAMESPACE = re.compile(r"[A-Za-z0-9._-]{1,255}")


class EnumType(Protocol):
    """A generated enum."""

    def keys(self) -> Sequence[str]: ...
    def values(self) -> Sequence[Any]: ...


def values_of(enum: EnumType) -> frozenset[int]:
    """The known numbers of an enum whose zero has a meaning of its own."""
    return frozenset(enum.values())


def set_values_of(enum: EnumType) -> frozenset[int]:
    """The known numbers of an enum whose zero is refused."""
    return values_of(enum) - {0}


_TIMEOUT_TYPES = values_of(failure_pb2.TimeoutType)
_RETRY_STATES = values_of(failure_pb2.RetryState)


def check_namespace_name(field: str, value: str) -> None:
    """1 to 255 bytes of letters, digits, ".", "_" and "-"."""
    if not _NAMESPACE.fullmatch(value):
        raise InvalidArgumentError(
            field,
            'expected 1 to 255 letters, digits, ".", "_" and "-", found '
            + (shown(value) if value else "none"),
        )


def check_id(field: str, value: str, limits: LimitSettings) -> None:
    """An id or a name that must be there."""
    if not value:
        raise InvalidArgumentError(field, "expected a value, found none")
    check_text(field, value, limits)


def check_text(field: str, value: str, limits: LimitSettings) -> None:
    """An id or a short text that may be empty."""
    # A character is at most four bytes, so most values need no encoding to be judged.
    if len(value) * 4 > limits.id_max_bytes:
        length = len(value.encode())
        if length > limits.id_max_bytes:
            raise InvalidArgumentError(
                field, f"expected at most {limits.id_max_bytes} bytes, found {length}"
            )
    check_no_nul(field, value)


def check_long_text(field: str, value: str, limits: LimitSettings) -> None:
    """Text for people that may be empty."""
    length = len(value.encode())
    if length > limits.payload_max_bytes:
        raise InvalidArgumentError(
            field, f"expected at most {limits.payload_max_bytes} bytes, found {length}"
        )


def check_no_nul(field: str, value: str) -> None:
    if "\0" in value:
        raise InvalidArgumentError(field, "expected no U+0000, found one")


def check_run_id(field: str, value: str) -> None:
    """A run id, or nothing for the newest run."""
    if value and not _is_run_id(value):
        raise InvalidArgumentError(field, f"expected a run id (a UUID), found {shown(value)}")


def check_execution(
    execution: common_pb2.WorkflowExecution,
    limits: LimitSettings,
    field: str = "workflow_execution",
) -> None:
    check_id(f"{field}.workflow_id", execution.workflow_id, limits)
    check_run_id(f"{field}.run_id", execution.run_id)


def check_size(field: str, value: Message, limits: LimitSettings) -> None:
    """Payloads and whatever else is bounded by its encoded size."""
    size = value.ByteSize()
    if size > limits.payload_max_bytes:
        raise InvalidArgumentError(
            field, f"expected at most {limits.payload_max_bytes} bytes, found {size}"
        )


def check_duration(field: str, value: Duration, max_seconds: float = MAX_DURATION_SECONDS) -> None:
    """Zero or more; unset is zero."""
    seconds, nanos = value.seconds, value.nanos
    if seconds < 0 or nanos < 0:
        raise InvalidArgumentError(field, f"expected zero or more, found {seconds + nanos / 1e9} s")
    if seconds > max_seconds or (seconds == max_seconds and nanos):
        raise InvalidArgumentError(
            field, f"expected at most {max_seconds} s, found {seconds + nanos / 1e9} s"
        )


def check_set_duration(
    field: str, owner: Message, max_seconds: float = MAX_DURATION_SECONDS
) -> None:
    """A field of `owner` that is unset or more than zero. `field` is its path; the last part names
    it.
    """
    name = field.rpartition(".")[2]
    if not owner.HasField(name):
        return
    value: Duration = getattr(owner, name)
    check_duration(field, value, max_seconds)
    if not value.seconds and not value.nanos:
        raise InvalidArgumentError(field, "expected more than zero; leave it unset for the default")


def check_enum(field: str, value: int, known: frozenset[int]) -> None:
    if value not in known:
        raise InvalidArgumentError(field, f"expected one of {sorted(known)}, found {value}")


def check_range(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidArgumentError(field, f"expected {least} to {most}, found {value}")


def check_capabilities(capabilities: Sequence[str], limits: LimitSettings) -> None:
    """A set of non-empty strings, in any order; none begins as those of builds do."""
    if len(capabilities) > MAX_CAPABILITIES:
        raise InvalidArgumentError(
            "capabilities", f"expected at most {MAX_CAPABILITIES}, found {len(capabilities)}"
        )
    for index, capability in enumerate(capabilities):
        check_id(f"capabilities[{index}]", capability, limits)
        if capability.startswith(BUILD_PREFIX):
            raise InvalidArgumentError(
                f"capabilities[{index}]",
                f"expected none that begins with {BUILD_PREFIX!r}, found {shown(capability)}:"
                " worker_version says the build",
            )
    if len(set(capabilities)) < len(capabilities):
        raise InvalidArgumentError("capabilities", "expected each once, found one repeated")


def check_priority(priority: common_pb2.Priority, limits: LimitSettings) -> None:
    check_range("priority.priority_key", priority.priority_key, 0, MAX_PRIORITY_KEY)
    check_text("priority.fairness_key", priority.fairness_key, limits)
    weight = priority.fairness_weight
    # False for a NaN as well.
    if not 0 <= weight < float("inf"):
        raise InvalidArgumentError(
            "priority.fairness_weight", f"expected zero or more, found {weight}"
        )


def check_retry_policy(field: str, policy: common_pb2.RetryPolicy, limits: LimitSettings) -> None:
    """How something is tried again; unset parts are the defaults."""
    check_duration(f"{field}.initial_interval", policy.initial_interval)
    check_duration(f"{field}.maximum_interval", policy.maximum_interval)
    coefficient = policy.backoff_coefficient
    # False for a NaN as well.
    if coefficient and not 1 <= coefficient < float("inf"):
        raise InvalidArgumentError(
            f"{field}.backoff_coefficient", f"expected at least 1, and finite, found {coefficient}"
        )
    longest = policy.maximum_interval.ToTimedelta()
    if longest and longest < policy.initial_interval.ToTimedelta():
        raise InvalidArgumentError(
            f"{field}.maximum_interval", "expected at least initial_interval, found less"
        )
    check_range(f"{field}.maximum_attempts", policy.maximum_attempts, 0, 2**31 - 1)
    count = len(policy.non_retryable_error_types)
    check_range(f"{field}.non_retryable_error_types", count, 0, MAX_ERROR_TYPES)
    for index, name in enumerate(policy.non_retryable_error_types):
        check_id(f"{field}.non_retryable_error_types[{index}]", name, limits)


def check_failure(field: str, failure: failure_pb2.Failure, limits: LimitSettings) -> None:
    """A chain of failures."""
    check_size(field, failure, limits)
    link, path = failure, field
    while True:
        _check_failure_info(path, link)
        if not link.HasField("cause"):
            return
        link, path = link.cause, f"{path}.cause"


def _check_failure_info(path: str, link: failure_pb2.Failure) -> None:
    kind = link.WhichOneof("failure_info")
    match kind:
        case "application_failure_info":
            check_duration(
                f"{path}.application_failure_info.next_retry_delay",
                link.application_failure_info.next_retry_delay,
            )
        case "timeout_failure_info":
            check_enum(
                f"{path}.timeout_failure_info.timeout_type",
                link.timeout_failure_info.timeout_type,
                _TIMEOUT_TYPES,
            )
        case "activity_failure_info":
            check_enum(
                f"{path}.activity_failure_info.retry_state",
                link.activity_failure_info.retry_state,
                _RETRY_STATES,
            )
        case "child_workflow_failure_info":
            check_enum(
                f"{path}.child_workflow_failure_info.retry_state",
                link.child_workflow_failure_info.retry_state,
                _RETRY_STATES,
            )
        case "cancelled_failure_info" | "terminated_failure_info" | "server_failure_info" | None:
            pass
        case _:
            assert_never(kind)


def shown(value: str) -> str:
    """A value as an error shows it: quoted, cut short."""
    return repr(value) if len(value) <= 80 else repr(value[:77]) + "..."


def _is_run_id(value: str) -> bool:
    if len(value) != 36:
        return False
    try:
        return str(uuid.UUID(value)) == value
    except ValueError:
        return False
