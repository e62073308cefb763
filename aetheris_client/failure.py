"""Exceptions to recorded failures and back.

The errors of `errors.py` travel without loss, with their causes and stack traces. Any other
exception becomes an application failure whose type is the name of its class. A chain is cut where
it closes a circle or grows too long.
"""

import asyncio
import traceback
from collections.abc import Callable, Mapping
from typing import Final, TypeVar, cast

from google.protobuf.duration_pb2 import Duration

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
    RetryState,
    ServerError,
    TerminatedError,
    TimeoutType,
)

SOURCE: Final = "aetheris-python"
MAX_CHAIN_LENGTH: Final = 50
MAX_STACK_TRACE_CHARS: Final = 16_384


def to_failure(exception: BaseException, converter: DataConverter) -> Failure:
    """The exception and its causes as a failure that can be recorded.

    The cause of an exception is its `__cause__`, else what was being handled when it was raised:
    what a traceback would show.

    Raises:
        PayloadEncodeError: Details have no encoding.
    """
    chain: list[BaseException] = []
    link: BaseException | None = exception
    while link is not None and len(chain) < MAX_CHAIN_LENGTH and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    outermost = Failure()
    failure = outermost
    for link in chain:
        if link is not exception:
            failure = failure.cause
        _write(link, failure, converter)
    return outermost


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


def _write(exception: BaseException, failure: Failure, converter: DataConverter) -> None:
    if isinstance(exception, FailureError):
        failure.message = exception.message
        failure.source = exception.source or SOURCE
        failure.stack_trace = exception.stack_trace or _stack_trace(exception)
    else:
        failure.message = str(exception)
        failure.source = SOURCE
        failure.stack_trace = _stack_trace(exception)
    _write_info(exception, failure, converter)


def _write_info(exception: BaseException, failure: Failure, converter: DataConverter) -> None:
    match exception:
        case ApplicationError():
            failure.application_failure_info.CopyFrom(_application_info(exception, converter))
        case CancelledError():
            details = converter.to_payloads(exception.details)
            failure.cancelled_failure_info.CopyFrom(CancelledFailureInfo(details=details))
        case asyncio.CancelledError():
            failure.message = failure.message or "cancelled"
            failure.cancelled_failure_info.SetInParent()
        case TerminatedError():
            failure.terminated_failure_info.SetInParent()
        case errors.TimeoutError():
            info = TimeoutFailureInfo(
                timeout_type=cast("failure_pb2.TimeoutType.ValueType", exception.type.value),
                last_heartbeat_details=converter.to_payloads(exception.last_heartbeat_details),
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
            failure.application_failure_info.type = type(exception).__name__


def _application_info(error: ApplicationError, converter: DataConverter) -> ApplicationFailureInfo:
    delay = None
    if error.next_retry_delay is not None:
        delay = Duration()
        delay.FromTimedelta(error.next_retry_delay)
    return ApplicationFailureInfo(
        type=error.type or "",
        non_retryable=error.non_retryable,
        details=converter.to_payloads(error.details),
        next_retry_delay=delay,
    )


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
    """The innermost part of the stack, if it is too long: the place of the error is at its end."""
    text = "".join(traceback.format_tb(exception.__traceback__))
    return text[-MAX_STACK_TRACE_CHARS:]


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
