"""The API's enums as users see them: each value is its name, so that logs and JSON read well."""

from enum import StrEnum
from typing import Protocol, TypeVar


class WorkflowStatus(StrEnum):
    """The status of a run. All but RUNNING and PAUSED are final."""

    UNSPECIFIED = "UNSPECIFIED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TERMINATED = "TERMINATED"
    CONTINUED_AS_NEW = "CONTINUED_AS_NEW"
    TIMED_OUT = "TIMED_OUT"
    PAUSED = "PAUSED"


class WorkflowIdReusePolicy(StrEnum):
    """What a start does where a closed run has the workflow id."""

    ALLOW_DUPLICATE = "ALLOW_DUPLICATE"
    ALLOW_DUPLICATE_FAILED_ONLY = "ALLOW_DUPLICATE_FAILED_ONLY"
    REJECT_DUPLICATE = "REJECT_DUPLICATE"


class WorkflowIdConflictPolicy(StrEnum):
    """What a start does where an open run has the workflow id."""

    FAIL = "FAIL"
    USE_EXISTING = "USE_EXISTING"
    TERMINATE_EXISTING = "TERMINATE_EXISTING"


class QueryRejectCondition(StrEnum):
    """When a query is refused because of the run's status."""

    NONE = "NONE"
    NOT_OPEN = "NOT_OPEN"
    NOT_COMPLETED_CLEANLY = "NOT_COMPLETED_CLEANLY"


class UpdateStage(StrEnum):
    """How far an update has come."""

    ADMITTED = "ADMITTED"
    """The server has it, in memory alone."""
    ACCEPTED = "ACCEPTED"
    """Its validator let it pass; that is in the history."""
    COMPLETED = "COMPLETED"
    """It has an outcome: a result, a failure, or a rejection."""


class PendingActivityState(StrEnum):
    """Where an open activity stands."""

    UNSPECIFIED = "UNSPECIFIED"
    SCHEDULED = "SCHEDULED"
    STARTED = "STARTED"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    PAUSED = "PAUSED"


class ActivityChangeType(StrEnum):
    """What was done to an activity from outside."""

    UNSPECIFIED = "UNSPECIFIED"
    PAUSED = "PAUSED"
    UNPAUSED = "UNPAUSED"
    RESET = "RESET"
    OPTIONS_UPDATED = "OPTIONS_UPDATED"


class PendingWorkflowTaskState(StrEnum):
    """Where an open workflow task stands."""

    UNSPECIFIED = "UNSPECIFIED"
    SCHEDULED = "SCHEDULED"
    STARTED = "STARTED"


class PendingChildState(StrEnum):
    """Where a child stands that has not closed."""

    UNSPECIFIED = "UNSPECIFIED"
    INITIATED = "INITIATED"
    STARTED = "STARTED"


class PendingUpdateStage(StrEnum):
    """How far an update has come that has no outcome yet."""

    UNSPECIFIED = "UNSPECIFIED"
    ADMITTED = "ADMITTED"
    ACCEPTED = "ACCEPTED"


class WaitKind(StrEnum):
    """What an open run waits for."""

    UNSPECIFIED = "UNSPECIFIED"
    PAUSED = "PAUSED"
    START_DELAY = "START_DELAY"
    WORKFLOW_TASK_NOT_TAKEN = "WORKFLOW_TASK_NOT_TAKEN"
    WORKFLOW_TASK_RUNNING = "WORKFLOW_TASK_RUNNING"
    WORKFLOW_TASK_BACKING_OFF = "WORKFLOW_TASK_BACKING_OFF"
    ACTIVITY_NOT_TAKEN = "ACTIVITY_NOT_TAKEN"
    ACTIVITY_RUNNING = "ACTIVITY_RUNNING"
    ACTIVITY_BACKING_OFF = "ACTIVITY_BACKING_OFF"
    ACTIVITY_PAUSED = "ACTIVITY_PAUSED"
    TIMER = "TIMER"
    CHILD_START = "CHILD_START"
    CHILD = "CHILD"
    EXTERNAL_CALL = "EXTERNAL_CALL"
    SIGNAL = "SIGNAL"


class TaskQueueType(StrEnum):
    """Which tasks a queue holds."""

    WORKFLOW = "WORKFLOW"
    ACTIVITY = "ACTIVITY"


class ComponentStatus(StrEnum):
    """Whether a part of the cluster is well."""

    UNSPECIFIED = "UNSPECIFIED"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"


Member = TypeVar("Member", bound=StrEnum)
Number = TypeVar("Number", bound=int)
NumberIn_contra = TypeVar("NumberIn_contra", bound=int, contravariant=True)
NumberOut_co = TypeVar("NumberOut_co", bound=int, covariant=True)


class _Names(Protocol[NumberIn_contra]):
    """A generated enum: numbers to names."""

    def Name(self, number: NumberIn_contra) -> str: ...  # noqa: N802 - generated


class _Numbers(Protocol[NumberOut_co]):
    """A generated enum: names to numbers."""

    def Value(self, name: str) -> NumberOut_co: ...  # noqa: N802 - generated


def from_proto(kind: type[Member], names: _Names[Number], number: Number, prefix: str) -> Member:
    """The member for an API value; UNSPECIFIED for one that this version does not know."""
    try:
        return kind(names.Name(number).removeprefix(prefix))
    except ValueError:
        return kind("UNSPECIFIED")


def to_proto(member: StrEnum, numbers: _Numbers[Number], prefix: str) -> Number:
    """The API value of a member."""
    return numbers.Value(prefix + member.value)
