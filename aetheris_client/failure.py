"""Exceptions to recorded failures and back.

The errors of `errors.py` travel without loss, with their causes and stack traces. Any other
exception becomes an application failure whose type is the name of its class. A chain is cut where
it closes a circle or grows too long.

A failure has one cause, an exception group has many: its message tells them all, and the first is
its cause. It is not worth another attempt if one of them is not. What was noted on an exception
(`add_note`) stands behind its message.

Recording a failure never fails itself: what a message or a type hold that cannot be recorded is
replaced or left out. So are details, where the caller does not want to hear of them.
"""

import asyncio
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, TypeVar, assert_never, cast

from aetheris.api.v1 import failure_pb2
from aetheris.api.v1.common_pb2 import (
    ActivityType,
    Payloads,
    WorkflowExecution,
    WorkflowType,
)
from aetheris.api.v1.failure_pb2 import (
    ActivityFailureInfo,
    ApplicationFailureInfo,
    CancelledFailureInfo,
    ChildWorkflowFailureInfo,
    Failure,
    TimeoutFailureInfo,
)
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

SOURCE: Final = "aetheris-python"
MAX_CHAIN_LENGTH: Final = 20
MAX_MESSAGE_BYTES: Final = 16_384
MAX_STACK_TRACE_BYTES: Final = 16_384
# What the server takes leaves room for the rest of the answer.
MAX_FAILURE_BYTES: Final = 256 * 1024
_MAX_NAME_BYTES: Final = 1_024
_MAX_GROUP_MEMBERS: Final = 20
_CUT: Final = "..."


def to_failure(
    exception: BaseException, converter: DataConverter, *, drops_details: bool = False
) -> Failure:
    """The exception and its causes as a failure that can be recorded.

    The cause of an exception is its `__cause__`, else, of a group, the first of its members, else
    what was being handled when it was raised: what a traceback would show.

    Args:
        exception: Of any kind.
        converter: Encodes details.
        drops_details: Leave out details that have no encoding, and say so in the message; nothing
            is raised then.

    Raises:
        PayloadEncodeError: Details have no encoding.
    """
    encode = _DetailEncoder(converter, drops_details=drops_details)
    links: list[Failure] = []
    left = MAX_FAILURE_BYTES
    for link in _chain(exception):
        failure = _written(link, encode)
        if failure.ByteSize() > left:
            size = failure.ByteSize()
            _drop_details(failure, f"{size} bytes, expected at most {left}")
        left -= failure.ByteSize()
        # The outermost is always within the bound: its parts are.
        if left < 0:
            break
        links.append(failure)
    outermost = links[-1]
    for failure in reversed(links[:-1]):
        failure.cause.CopyFrom(outermost)
        outermost = failure
    return outermost


def _chain(exception: BaseException) -> list[BaseException]:
    # Compared by identity, and never for truth: exceptions may define both.
    chain: list[BaseException] = []
    seen: set[int] = set()
    link: BaseException | None = exception
    while link is not None and len(chain) < MAX_CHAIN_LENGTH and id(link) not in seen:
        chain.append(link)
        seen.add(id(link))
        link = _cause(link)
    return chain


def _cause(exception: BaseException) -> BaseException | None:
    if exception.__cause__ is not None:
        return exception.__cause__
    if isinstance(exception, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", exception).exceptions[0]
    return None if exception.__suppress_context__ else exception.__context__


def _leaves(exception: BaseException) -> Iterator[BaseException]:
    """What a group comes down to, in order; not more than a reader can take in."""
    rest = [exception]
    while rest:
        link = rest.pop()
        if isinstance(link, BaseExceptionGroup):
            rest += reversed(cast("BaseExceptionGroup[BaseException]", link).exceptions)
        else:
            yield link


def _text(exception: BaseException) -> str:
    """What it says: its message, the members of a group, its notes."""
    text = recordable(exception)
    if isinstance(exception, BaseExceptionGroup):
        leaves = _leaves(cast("BaseExceptionGroup[BaseException]", exception))
        told = [_title(leaf) for leaf in islice(leaves, _MAX_GROUP_MEMBERS)]
        is_cut = next(leaves, None) is not None
        text = "; ".join([f"{text}: {told[0]}", *told[1:], *([_CUT] if is_cut else [])])
    return text


def _title(exception: BaseException) -> str:
    name = type(exception).__name__
    text = recordable(exception, _MAX_NAME_BYTES)
    return f"{name}: {text}" if text else name


def _with_notes(text: str, exception: BaseException) -> str:
    # Anything may stand there: it is an attribute like others.
    notes: Any = getattr(exception, "__notes__", None)
    if not isinstance(notes, list):
        return text
    return "\n".join([text, *map(recordable, cast("list[object]", notes))])


def from_failure(failure: Failure, converter: DataConverter) -> FailureError:
    """The exception that a failure records, its causes as `__cause__`.

    Details come as they decode without type hints; those that do not decode come as payloads.
    """
    exception = _read(failure, converter)
    link: FailureError = exception
    while failure.HasField("cause"):
        failure = failure.cause
        cause = _read(failure, converter)
        link.__cause__ = cause
        link = cause
    return exception


def _written(exception: BaseException, encode: "_DetailEncoder") -> Failure:
    """One link."""
    failure = Failure(source=SOURCE)
    if isinstance(exception, FailureError):
        # A subclass may have left its base's constructor out.
        text = recordable(getattr(exception, "message", ""))
        failure.message = recordable(_with_notes(text, exception))
        failure.source = recordable(getattr(exception, "source", ""), _MAX_NAME_BYTES) or SOURCE
        recorded = str(getattr(exception, "stack_trace", ""))
        failure.stack_trace = _innermost(recorded) or _stack_trace(exception)
    else:
        failure.message = recordable(_with_notes(_text(exception), exception))
        failure.stack_trace = _stack_trace(exception)
    try:
        _write_info(exception, failure, encode)
    except PayloadEncodeError:
        raise
    except Exception as error:  # noqa: BLE001 - user code, and attributes of any type
        # Some attribute is not of the type it is said to be.
        info = failure.application_failure_info
        info.type = recordable(type(exception).__name__, _MAX_NAME_BYTES)
        info.non_retryable = getattr(exception, "non_retryable", False) is True
        _say(failure, f"not recorded as it was: {recordable(error, _MAX_NAME_BYTES)}")
    return failure


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
        return encoded[: limit - len(_CUT)].decode(errors="ignore") + _CUT
    return encoded.decode()


def trimmed(failure: Failure, reason: str) -> Failure:
    """Without details, stack and causes: what is left decides whether there is a next attempt."""
    short = Failure()
    short.CopyFrom(failure)
    short.ClearField("cause")
    short.ClearField("stack_trace")
    _drop_details(short, recordable(reason, _MAX_NAME_BYTES))
    return short


def _say(failure: Failure, remark: str) -> None:
    failure.message = recordable(failure.message, MAX_MESSAGE_BYTES - 2 * _MAX_NAME_BYTES)
    failure.message += f" ({remark})" if failure.message else remark


def _drop_details(failure: Failure, reason: str) -> None:
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
    _say(failure, f"details left out: {reason}")


class _DetailEncoder:
    def __init__(self, converter: DataConverter, *, drops_details: bool) -> None:
        self._converter = converter
        self._drops_details = drops_details

    def __call__(self, values: Sequence[object], failure: Failure) -> Payloads | None:
        """Encoded; None, and a remark in the message, where they do not encode.

        Raises:
            PayloadEncodeError: They do not encode, and that is to be heard of.
        """
        try:
            return self._converter.to_payloads(values)
        except Exception as error:
            # User code raises it: converters, and what they encode.
            if isinstance(error, PayloadEncodeError) and not self._drops_details:
                raise
            _say(failure, f"details left out: {recordable(error, _MAX_NAME_BYTES)}")
            return None


def _write_info(exception: BaseException, failure: Failure, encode: _DetailEncoder) -> None:
    match exception:
        case ApplicationError():
            failure.application_failure_info.CopyFrom(_application_info(exception, failure, encode))
        case CancelledError():
            details = encode(exception.details, failure)
            failure.cancelled_failure_info.CopyFrom(CancelledFailureInfo(details=details))
        case asyncio.CancelledError():
            failure.message = failure.message or "cancelled"
            failure.cancelled_failure_info.SetInParent()
        case TerminatedError():
            failure.terminated_failure_info.SetInParent()
        case errors.TimeoutError():
            info = TimeoutFailureInfo(
                timeout_type=cast("failure_pb2.TimeoutType.ValueType", exception.type.value),
                last_heartbeat_details=encode(exception.last_heartbeat_details, failure),
                outcome_unknown=exception.outcome_unknown,
            )
            failure.timeout_failure_info.CopyFrom(info)
        case ServerError():
            failure.server_failure_info.non_retryable = exception.non_retryable
            failure.server_failure_info.SetInParent()
        case ActivityError():
            failure.activity_failure_info.CopyFrom(_activity_info(exception))
        case ChildWorkflowError():
            failure.child_workflow_failure_info.CopyFrom(_child_info(exception))
        case _:
            info = failure.application_failure_info
            info.type = recordable(type(exception).__name__, _MAX_NAME_BYTES)
            info.non_retryable = any(map(_is_non_retryable, _leaves(exception)))


def _is_non_retryable(exception: BaseException) -> bool:
    # A subclass may have left its base's constructor out.
    is_application_error = isinstance(exception, ApplicationError)
    return is_application_error and getattr(exception, "non_retryable", False) is True


def _application_info(
    error: ApplicationError, failure: Failure, encode: _DetailEncoder
) -> ApplicationFailureInfo:
    info = ApplicationFailureInfo(
        type="" if error.type is None else recordable(error.type, _MAX_NAME_BYTES),
        non_retryable=bool(error.non_retryable),
        details=encode(error.details, failure),
    )
    if error.next_retry_delay is not None:
        try:
            info.next_retry_delay.FromTimedelta(error.next_retry_delay)
        except (AttributeError, TypeError, ValueError) as reason:
            info.ClearField("next_retry_delay")
            _say(failure, f"next_retry_delay left out: {recordable(reason, _MAX_NAME_BYTES)}")
    return info


def _activity_info(error: ActivityError) -> ActivityFailureInfo:
    return ActivityFailureInfo(
        scheduled_event_id=error.scheduled_event_id,
        started_event_id=error.started_event_id,
        identity=error.identity,
        activity_type=ActivityType(name=error.activity_type),
        activity_id=error.activity_id,
        retry_state=cast("failure_pb2.RetryState.ValueType", error.retry_state.value),
    )


def _child_info(error: ChildWorkflowError) -> ChildWorkflowFailureInfo:
    return ChildWorkflowFailureInfo(
        namespace=error.namespace,
        workflow_execution=WorkflowExecution(workflow_id=error.workflow_id, run_id=error.run_id),
        workflow_type=WorkflowType(name=error.workflow_type),
        initiated_event_id=error.initiated_event_id,
        started_event_id=error.started_event_id,
        retry_state=cast("failure_pb2.RetryState.ValueType", error.retry_state.value),
    )


def _stack_trace(exception: BaseException) -> str:
    try:
        text = "".join(traceback.format_tb(exception.__traceback__))
    except Exception:  # noqa: BLE001 - whatever the loader of the source raises
        return ""
    return _innermost(text)


def _innermost(stack_trace: str) -> str:
    """The last part of the stack, if it is too long: the place of the error is at its end."""
    encoded = stack_trace[-MAX_STACK_TRACE_BYTES:].encode(errors="backslashreplace")
    return encoded[-MAX_STACK_TRACE_BYTES:].decode(errors="ignore")


def _read(failure: Failure, converter: DataConverter) -> FailureError:
    kind = failure.WhichOneof("failure_info")
    reader = _READERS.get(kind) if kind is not None else None
    # A kind that this version does not know, or none, is still an error with a message.
    exception = reader(failure, converter) if reader else ApplicationError(failure.message)
    exception.stack_trace = failure.stack_trace
    exception.source = failure.source
    return exception


def _read_application(failure: Failure, converter: DataConverter) -> FailureError:
    info = failure.application_failure_info
    has_delay = info.HasField("next_retry_delay")
    return ApplicationError(
        failure.message,
        *_details(info.details, converter),
        type=info.type or None,
        non_retryable=info.non_retryable,
        next_retry_delay=info.next_retry_delay.ToTimedelta() if has_delay else None,
    )


def _read_cancelled(failure: Failure, converter: DataConverter) -> FailureError:
    details = _details(failure.cancelled_failure_info.details, converter)
    return CancelledError(failure.message, *details)


def _read_terminated(failure: Failure, converter: DataConverter) -> FailureError:
    return TerminatedError(failure.message)


def _read_timeout(failure: Failure, converter: DataConverter) -> FailureError:
    info = failure.timeout_failure_info
    return errors.TimeoutError(
        failure.message,
        type=_known(TimeoutType, info.timeout_type),
        last_heartbeat_details=_details(info.last_heartbeat_details, converter),
        outcome_unknown=info.outcome_unknown,
    )


def _read_server(failure: Failure, converter: DataConverter) -> FailureError:
    return ServerError(failure.message, non_retryable=failure.server_failure_info.non_retryable)


def _read_activity(failure: Failure, converter: DataConverter) -> FailureError:
    info = failure.activity_failure_info
    return ActivityError(
        failure.message,
        scheduled_event_id=info.scheduled_event_id,
        started_event_id=info.started_event_id,
        activity_type=info.activity_type.name,
        activity_id=info.activity_id,
        identity=info.identity,
        retry_state=_known(RetryState, info.retry_state),
    )


def _read_child(failure: Failure, converter: DataConverter) -> FailureError:
    info = failure.child_workflow_failure_info
    return ChildWorkflowError(
        failure.message,
        namespace=info.namespace,
        workflow_id=info.workflow_execution.workflow_id,
        run_id=info.workflow_execution.run_id,
        workflow_type=info.workflow_type.name,
        initiated_event_id=info.initiated_event_id,
        started_event_id=info.started_event_id,
        retry_state=_known(RetryState, info.retry_state),
    )


def _details(payloads: Payloads, converter: DataConverter) -> list[object]:
    return [converter.from_payload_or_itself(payload) for payload in payloads.payloads]


_Known = TypeVar("_Known", TimeoutType, RetryState)


def _known(kind: type[_Known], number: int) -> _Known:
    """The member of that number; a newer server's, which this version does not know, is
    unspecified.
    """
    try:
        return kind(number)
    except ValueError:
        return kind(0)


_READERS: Final[Mapping[str, Callable[[Failure, DataConverter], FailureError]]] = {
    "application_failure_info": _read_application,
    "cancelled_failure_info": _read_cancelled,
    "terminated_failure_info": _read_terminated,
    "timeout_failure_info": _read_timeout,
    "server_failure_info": _read_server,
    "activity_failure_info": _read_activity,
    "child_workflow_failure_info": _read_child,
}
