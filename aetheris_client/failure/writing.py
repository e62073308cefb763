"""Exceptions to failures that can be recorded."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, cast

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
    ServerError,
    TerminatedError,
)
from aetheris_client.failure.limits import (
    CUT,
    MAX_NAME_BYTES,
    add_remark,
    drop_details,
    innermost,
    recordable,
    stack_trace_of,
)

SOURCE: Final = "aetheris-python"
MAX_CHAIN_LENGTH: Final = 20
# What the server takes leaves room for the rest of the answer.
MAX_FAILURE_BYTES: Final = 256 * 1024
_MAX_GROUP_MEMBERS: Final = 20


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
            drop_details(failure, f"{size} bytes, expected at most {left}")
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
        text = "; ".join([f"{text}: {told[0]}", *told[1:], *([CUT] if is_cut else [])])
    return text


def _title(exception: BaseException) -> str:
    name = type(exception).__name__
    text = recordable(exception, MAX_NAME_BYTES)
    return f"{name}: {text}" if text else name


def _with_notes(text: str, exception: BaseException) -> str:
    # Anything may stand there: it is an attribute like others.
    notes: Any = getattr(exception, "__notes__", None)
    if not isinstance(notes, list):
        return text
    return "\n".join([text, *map(recordable, cast("list[object]", notes))])


def _written(exception: BaseException, encode: "_DetailEncoder") -> Failure:
    """One link."""
    failure = Failure(source=SOURCE)
    if isinstance(exception, FailureError):
        # A subclass may have left its base's constructor out.
        text = recordable(getattr(exception, "message", ""))
        failure.message = recordable(_with_notes(text, exception))
        failure.source = recordable(getattr(exception, "source", ""), MAX_NAME_BYTES) or SOURCE
        recorded = str(getattr(exception, "stack_trace", ""))
        failure.stack_trace = innermost(recorded) or stack_trace_of(exception)
    else:
        failure.message = recordable(_with_notes(_text(exception), exception))
        failure.stack_trace = stack_trace_of(exception)
    try:
        _write_info(exception, failure, encode)
    except PayloadEncodeError:
        raise
    except Exception as error:  # noqa: BLE001 - user code, and attributes of any type
        # Some attribute is not of the type it is said to be.
        info = failure.application_failure_info
        info.type = recordable(type(exception).__name__, MAX_NAME_BYTES)
        info.non_retryable = getattr(exception, "non_retryable", False) is True
        add_remark(failure, f"not recorded as it was: {recordable(error, MAX_NAME_BYTES)}")
    return failure


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
            add_remark(failure, f"details left out: {recordable(error, MAX_NAME_BYTES)}")
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
            info.type = recordable(type(exception).__name__, MAX_NAME_BYTES)
            info.non_retryable = any(map(_is_non_retryable, _leaves(exception)))


def _is_non_retryable(exception: BaseException) -> bool:
    # A subclass may have left its base's constructor out.
    is_application_error = isinstance(exception, ApplicationError)
    return is_application_error and getattr(exception, "non_retryable", False) is True


def _application_info(
    error: ApplicationError, failure: Failure, encode: _DetailEncoder
) -> ApplicationFailureInfo:
    info = ApplicationFailureInfo(
        type="" if error.type is None else recordable(error.type, MAX_NAME_BYTES),
        non_retryable=bool(error.non_retryable),
        details=encode(error.details, failure),
    )
    if error.next_retry_delay is not None:
        try:
            info.next_retry_delay.FromTimedelta(error.next_retry_delay)
        except (AttributeError, TypeError, ValueError) as reason:
            info.ClearField("next_retry_delay")
            add_remark(failure, f"next_retry_delay left out: {recordable(reason, MAX_NAME_BYTES)}")
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
