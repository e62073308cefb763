"""What a failure may hold: text that can be recorded, cut to a size; details, where they fit."""

import traceback
from typing import Final, assert_never

from aetheris.api.v1.failure_pb2 import Failure

MAX_MESSAGE_BYTES: Final = 16_384
MAX_STACK_TRACE_BYTES: Final = 16_384
MAX_NAME_BYTES: Final = 1_024
CUT: Final = "..."


def recordable(value: object, limit: int = MAX_MESSAGE_BYTES) -> str:
    """What it says, as text of so many bytes at most that can be recorded; raises nothing.

    A lone surrogate, as in the name of a file that is not in UTF-8, is shown as its escape.
    """
    try:
        text = str(value)
    except Exception as error:  # noqa: BLE001 - user code
        text = f"<{type(value).__name__}: its text raised {type(error).__name__}>"
    encoded = text[: limit + 1].encode(errors="backslashreplace")
    if len(encoded) > limit:
        # Where that cuts a character in two, its first half goes as well.
        return encoded[: limit - len(CUT)].decode(errors="ignore") + CUT
    return encoded.decode()


def trimmed(failure: Failure, reason: str) -> Failure:
    """Without details, stack and causes: what is left decides whether there is a next attempt."""
    short = Failure()
    short.CopyFrom(failure)
    short.ClearField("cause")
    short.ClearField("stack_trace")
    drop_details(short, recordable(reason, MAX_NAME_BYTES))
    return short


def add_remark(failure: Failure, remark: str) -> None:
    """Put it behind the message."""
    failure.message = recordable(failure.message, MAX_MESSAGE_BYTES - 2 * MAX_NAME_BYTES)
    failure.message += f" ({remark})" if failure.message else remark


def drop_details(failure: Failure, reason: str) -> None:
    """Leave them out, if there can be any, and say why."""
    kind = failure.WhichOneof("failure_info")
    match kind:
        case "application_failure_info":
            failure.application_failure_info.ClearField("details")
        case "cancelled_failure_info":
            failure.cancelled_failure_info.ClearField("details")
        case "timeout_failure_info":
            failure.timeout_failure_info.ClearField("last_heartbeat_details")
        case (
            "terminated_failure_info"
            | "server_failure_info"
            | "activity_failure_info"
            | "child_workflow_failure_info"
            | None
        ):
            return
        case _:
            assert_never(kind)
    add_remark(failure, f"details left out: {reason}")


def stack_trace_of(exception: BaseException) -> str:
    """Where it was raised; empty where that cannot be told."""
    try:
        text = "".join(traceback.format_tb(exception.__traceback__))
    except Exception:  # noqa: BLE001 - whatever the loader of the source raises
        return ""
    return innermost(text)


def innermost(stack_trace: str) -> str:
    """The last part of the stack, if it is too long: the place of the error is at its end."""
    encoded = stack_trace[-MAX_STACK_TRACE_BYTES:].encode(errors="backslashreplace")
    return encoded[-MAX_STACK_TRACE_BYTES:].decode(errors="ignore")
