"""Failures as a run's state keeps them: small."""

from typing import assert_never

from aetheris.api.v1 import failure_pb2

_MAX_BYTES = 4096
_MAX_TEXT_BYTES = 1024


def trim(failure: failure_pb2.Failure) -> failure_pb2.Failure:
    """The failure, without what makes it larger than 4 KiB; the log keeps all of it.

    A large one loses its cause and all details; its texts are cut.
    """
    if failure.ByteSize() <= _MAX_BYTES:
        return failure
    trimmed = failure_pb2.Failure(
        message=_cut(failure.message),
        source=_cut(failure.source),
        stack_trace=_cut(failure.stack_trace),
    )
    kind = failure.WhichOneof("failure_info")
    match kind:
        case "application_failure_info":
            trimmed.application_failure_info.type = _cut(failure.application_failure_info.type)
            trimmed.application_failure_info.non_retryable = (
                failure.application_failure_info.non_retryable
            )
        case "timeout_failure_info":
            trimmed.timeout_failure_info.timeout_type = failure.timeout_failure_info.timeout_type
            trimmed.timeout_failure_info.outcome_unknown = (
                failure.timeout_failure_info.outcome_unknown
            )
        case "server_failure_info":
            trimmed.server_failure_info.CopyFrom(failure.server_failure_info)
        case "cancelled_failure_info":
            trimmed.cancelled_failure_info.SetInParent()
        case "terminated_failure_info":
            trimmed.terminated_failure_info.SetInParent()
        case "activity_failure_info" | "child_workflow_failure_info" | None:
            pass
        case _:
            assert_never(kind)
    return trimmed


def _cut(text: str) -> str:
    return text.encode()[:_MAX_TEXT_BYTES].decode(errors="ignore")
