"""Recorded failures to exceptions."""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure
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
