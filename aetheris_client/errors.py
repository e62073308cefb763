"""Every error that the client and worker SDKs raise to user code.

    AetherisError
    ├── FailureError                     what a run recorded; its `__cause__` led to it
    │   ├── ApplicationError             raised by user code
    │   ├── CancelledError               cancelled
    │   ├── TerminatedError              closed from outside
    │   ├── TimeoutError                 a deadline passed
    │   ├── ServerError                  the server itself failed
    │   ├── ActivityError                an activity did not complete; the cause says why
    │   └── ChildWorkflowError           a child did not complete; the cause says why
    ├── WorkflowFailedError              the awaited run did not complete; the cause says why
    ├── WorkflowUpdateFailedError        the awaited update was rejected, or failed
    ├── WorkflowContinuedAsNewError      the awaited run goes on as another one
    ├── PayloadConversionError
    │   ├── PayloadEncodeError           a value has no encoding
    │   └── PayloadDecodeError           a payload is not what the type hint says
    ├── CodecError                       the payload codec failed, or took too long
    ├── ConnectionClosedError            a client was used after its connection was closed
    └── RpcError                         a call was not answered with a result
        ├── InvalidArgumentError         a field of the request is wrong
        ├── NamespaceNotFoundError
        ├── NamespaceAlreadyExistsError
        ├── WorkflowNotFoundError
        ├── ActivityNotFoundError        the run has no open activity of that id
        ├── WorkflowClosedError          the run takes no more of this
        ├── WorkflowAlreadyStartedError
        ├── TaskNotFoundError            the task was completed, timed out, or given away
        ├── QueryFailedError             the run's code could not answer
        ├── QueryRejectedError           refused for the run's status, as asked
        ├── UpdateNotFoundError          the run has no update of that id
        ├── UpdateLimitError             the run takes no more updates, at all or for now
        ├── WorkflowNotReadyError        the run's code does not run now
        ├── UnavailableError             no server answers; the same request may succeed later
        │   └── NotReadyError            nobody answered in time: perhaps no worker polls
        └── DeadlineExceededError        the call's time was up

Imports no gRPC, so that workflow code may import it: `rpc_errors.py` makes the RpcErrors.
"""

from collections.abc import Sequence
from datetime import timedelta
from enum import IntEnum


class TimeoutType(IntEnum):
    """Which of a task's deadlines passed; numbered as in the API."""

    UNSPECIFIED = 0
    START_TO_CLOSE = 1
    SCHEDULE_TO_START = 2
    SCHEDULE_TO_CLOSE = 3
    HEARTBEAT = 4


class RetryState(IntEnum):
    """Why something was, or was not, tried again; numbered as in the API."""

    UNSPECIFIED = 0
    IN_PROGRESS = 1
    NON_RETRYABLE_FAILURE = 2
    TIMEOUT = 3
    MAXIMUM_ATTEMPTS_REACHED = 4
    RETRY_POLICY_NOT_SET = 5
    INTERNAL_SERVER_ERROR = 6
    CANCEL_REQUESTED = 7


class AetherisError(Exception):
    """Root of the tree."""


class FailureError(AetherisError):
    """One link of a recorded chain of failures.

    Attributes:
        message: For people.
        stack_trace: The stack at the place of the error, as text; empty where it was never
            recorded.
        source: Which SDK recorded it; empty before it is recorded.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.stack_trace = ""
        self.source = ""

    @property
    def cause(self) -> BaseException | None:
        """What led to it."""
        return self.__cause__


class ApplicationError(FailureError):
    """Raised by user code, to fail an activity or a run on purpose.

    Attributes:
        details: What the raiser attached.
        type: What retry policies match on. Another exception is recorded with the name of its
            class.
        non_retryable: Never try again, whatever the policy says.
        next_retry_delay: Overrides the policy's wait before the next attempt.
    """

    def __init__(
        self,
        message: str,
        *details: object,
        type: str | None = None,  # noqa: A002 - the field's word for it
        non_retryable: bool = False,
        next_retry_delay: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.details: tuple[object, ...] = details
        self.type = type
        self.non_retryable = non_retryable
        self.next_retry_delay = next_retry_delay

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.type else self.message


class CancelledError(FailureError):
    """The work was cancelled. `details` are what the cancelled code attached."""

    def __init__(self, message: str = "cancelled", *details: object) -> None:
        super().__init__(message)
        self.details: tuple[object, ...] = details


class TerminatedError(FailureError):
    """The run was closed from outside, without asking its code."""

    def __init__(self, message: str = "terminated") -> None:
        super().__init__(message)


class TimeoutError(FailureError):  # noqa: A001 - the field's word for it
    """A deadline passed.

    Attributes:
        type: Which one.
        last_heartbeat_details: Of the last heartbeat, if any.
        outcome_unknown: An at-most-once attempt was lost: its effect may or may not have happened.
    """

    def __init__(
        self,
        message: str = "timed out",
        *,
        type: TimeoutType = TimeoutType.UNSPECIFIED,  # noqa: A002 - the field's word for it
        last_heartbeat_details: Sequence[object] = (),
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.last_heartbeat_details: tuple[object, ...] = tuple(last_heartbeat_details)
        self.outcome_unknown = outcome_unknown


class ServerError(FailureError):
    """The server itself failed."""

    def __init__(self, message: str, *, non_retryable: bool = False) -> None:
        super().__init__(message)
        self.non_retryable = non_retryable


class ActivityError(FailureError):
    """An activity did not complete; `cause` says why, `retry_state` why it was not tried again."""

    def __init__(
        self,
        message: str,
        *,
        scheduled_event_id: int = 0,
        started_event_id: int = 0,
        activity_type: str = "",
        activity_id: str = "",
        identity: str = "",
        retry_state: RetryState = RetryState.UNSPECIFIED,
    ) -> None:
        super().__init__(message)
        self.scheduled_event_id = scheduled_event_id
        self.started_event_id = started_event_id
        self.activity_type = activity_type
        self.activity_id = activity_id
        self.identity = identity
        self.retry_state = retry_state


class ChildWorkflowError(FailureError):
    """A child workflow did not complete; `cause` says why, `retry_state` why it was not tried
    again.
    """

    def __init__(
        self,
        message: str,
        *,
        namespace: str = "",
        workflow_id: str = "",
        run_id: str = "",
        workflow_type: str = "",
        initiated_event_id: int = 0,
        started_event_id: int = 0,
        retry_state: RetryState = RetryState.UNSPECIFIED,
    ) -> None:
        super().__init__(message)
        self.namespace = namespace
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.workflow_type = workflow_type
        self.initiated_event_id = initiated_event_id
        self.started_event_id = started_event_id
        self.retry_state = retry_state


class WorkflowFailedError(AetherisError):
    """The awaited run closed otherwise than with a result. `status` is the name of its status."""

    def __init__(
        self, workflow_id: str, run_id: str, status: str, cause: BaseException | None
    ) -> None:
        because = f": {cause}" if cause is not None else ""
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} closed as {status}{because}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.status = status
        self.__cause__ = cause

    @property
    def cause(self) -> BaseException | None:
        """Why: one of the FailureErrors."""
        return self.__cause__


class WorkflowUpdateFailedError(AetherisError):
    """The awaited update was rejected, or failed."""

    def __init__(
        self, workflow_id: str, run_id: str, update_id: str, cause: BaseException | None
    ) -> None:
        because = f": {cause}" if cause is not None else ""
        super().__init__(f"update {update_id!r} of workflow {workflow_id!r} failed{because}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.update_id = update_id
        self.__cause__ = cause

    @property
    def cause(self) -> BaseException | None:
        """Why: one of the FailureErrors."""
        return self.__cause__


class WorkflowContinuedAsNewError(AetherisError):
    """The awaited run goes on as `new_run_id`; raised only to who does not follow runs."""

    def __init__(self, workflow_id: str, run_id: str, new_run_id: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} goes on as run {new_run_id!r}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.new_run_id = new_run_id


class PayloadConversionError(AetherisError):
    """A value and its payload could not be turned into each other.

    Attributes:
        type_name: The value's type when encoding, the wanted type when decoding.
        path: Where in the value, for example `$.items[3].price`; `$` is the value itself.
        reason: What was found.
    """

    def __init__(self, summary: str, type_name: str, path: str, reason: str) -> None:
        super().__init__(f"{summary} {type_name} at {path}: {reason}")
        self.type_name = type_name
        self.path = path
        self.reason = reason


class PayloadEncodeError(PayloadConversionError):
    """A value has no encoding."""

    def __init__(self, type_name: str, path: str, reason: str) -> None:
        super().__init__("cannot encode", type_name, path, reason)

    def within(self, place: str) -> "PayloadEncodeError":
        """The same error of a value that stands in a place with a name of its own."""
        return PayloadEncodeError(self.type_name, place + self.path.removeprefix("$"), self.reason)


class PayloadDecodeError(PayloadConversionError):
    """A payload is not what the type hint says."""

    def __init__(self, type_name: str, path: str, reason: str) -> None:
        super().__init__("cannot decode", type_name, path, reason)


class CodecError(AetherisError):
    """The payload codec failed, or took too long; `__cause__` is what it raised.

    Attributes:
        action: `encode` or `decode`.
        reason: For people.
    """

    def __init__(self, action: str, reason: str) -> None:
        super().__init__(f"the payload codec failed to {action}: {reason}")
        self.action = action
        self.reason = reason


class ConnectionClosedError(AetherisError):
    """A client or worker was used after its connection was closed, as `async with` does."""

    def __init__(self, address: str) -> None:
        super().__init__(f"the connection to {address} was closed: connect again")
        self.address = address


class RpcError(AetherisError):
    """A call was not answered with a result.

    Attributes:
        code: The name of its gRPC status code, for example `NOT_FOUND`.
        message: What the server said.
    """

    code = "UNKNOWN"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidArgumentError(RpcError):
    """One field of the request is wrong; nothing was written.

    Attributes:
        field: Path of the field, for example `workflow_type.name`.
        description: What was found and what was expected.
    """

    code = "INVALID_ARGUMENT"

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}" if field else description)
        self.field = field
        self.description = description


class NamespaceNotFoundError(RpcError):
    """There is no namespace of that name."""

    code = "NOT_FOUND"

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace!r} not found")
        self.namespace = namespace


class NamespaceAlreadyExistsError(RpcError):
    """There is a namespace of that name."""

    code = "ALREADY_EXISTS"

    def __init__(self, namespace: str) -> None:
        super().__init__(f"namespace {namespace!r} already exists")
        self.namespace = namespace


class WorkflowNotFoundError(RpcError):
    """There is no such run. `run_id` is empty where the newest was asked for."""

    code = "NOT_FOUND"

    def __init__(self, workflow_id: str, run_id: str = "") -> None:
        run = f" run {run_id!r}" if run_id else ""
        super().__init__(f"workflow {workflow_id!r}{run} not found")
        self.workflow_id = workflow_id
        self.run_id = run_id


class ActivityNotFoundError(RpcError):
    """The run has no open activity of that id: it has ended, or there never was one."""

    code = "NOT_FOUND"

    def __init__(self, workflow_id: str, run_id: str, activity_id: str) -> None:
        super().__init__(
            f"workflow {workflow_id!r} run {run_id!r} has no open activity {activity_id!r}"
        )
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.activity_id = activity_id


class WorkflowClosedError(RpcError):
    """The run has closed, so it takes no more signals or requests."""

    code = "NOT_FOUND"

    def __init__(self, workflow_id: str, run_id: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} has closed")
        self.workflow_id = workflow_id
        self.run_id = run_id


class WorkflowAlreadyStartedError(RpcError):
    """An open run, or a closed one that the reuse policy forbids, has the workflow id."""

    code = "ALREADY_EXISTS"

    def __init__(self, workflow_id: str, run_id: str, start_request_id: str = "") -> None:
        super().__init__(f"workflow {workflow_id!r} already started as run {run_id!r}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.start_request_id = start_request_id


class TaskNotFoundError(RpcError):
    """The task was completed, timed out, or was given to somebody else. `reason` is for people."""

    code = "NOT_FOUND"

    def __init__(self, reason: str) -> None:
        super().__init__(f"task not found: {reason}")
        self.reason = reason


class QueryFailedError(RpcError):
    """The run's code could not answer the query."""

    code = "INVALID_ARGUMENT"

    def __init__(self, message: str) -> None:
        super().__init__(f"query failed: {message}")
        self.message = message


class QueryRejectedError(RpcError):
    """The query was refused for the run's status, as asked. `status` is its enum name."""

    code = "FAILED_PRECONDITION"

    def __init__(self, status: str) -> None:
        super().__init__(f"query rejected: the run's status is {status}")
        self.status = status


class UpdateNotFoundError(RpcError):
    """The run has no such update; one that was only admitted may have been forgotten."""

    code = "NOT_FOUND"

    def __init__(self, workflow_id: str, run_id: str, update_id: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} has no update {update_id!r}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.update_id = update_id


class UpdateLimitError(RpcError):
    """The run takes no more updates, at all or for now. `reason` is for people."""

    code = "RESOURCE_EXHAUSTED"

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} takes no update: {reason}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.reason = reason


class WorkflowNotReadyError(RpcError):
    """The run's code does not run now. `reason` is for people."""

    code = "FAILED_PRECONDITION"

    def __init__(self, workflow_id: str, run_id: str, reason: str) -> None:
        super().__init__(f"workflow {workflow_id!r} run {run_id!r} is not ready: {reason}")
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.reason = reason


class UnavailableError(RpcError):
    """No server answers; the same request, with the same request id, may succeed later."""

    code = "UNAVAILABLE"


class NotReadyError(UnavailableError):
    """Nobody answered in time.

    Attributes:
        waited_for: Who.
        reason: Why, if that was found out: for example that no worker polls; else empty.
    """

    def __init__(self, waited_for: str, reason: str = "") -> None:
        super().__init__(f"no answer in time from {waited_for}" + (f": {reason}" if reason else ""))
        self.waited_for = waited_for
        self.reason = reason


class DeadlineExceededError(RpcError):
    """The call's time was up. A write may have happened; repeat it with the same request id."""

    code = "DEADLINE_EXCEEDED"
