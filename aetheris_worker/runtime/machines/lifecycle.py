"""How a run begins and ends.

There is at most one command that ends it, and nothing follows that. Of a run that is closed from
outside the code never learns.
"""

from typing import Final

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.api.v1.command_pb2 import (
    Command,
    ContinueAsNewWorkflowExecutionCommandAttributes,
)
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.parts import Parts


class _ClosingCommand:
    is_withdrawn: bool = False

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        return True

    def mark_recorded(self, event: HistoryEvent) -> None:
        """The run is closed; there is nothing left to move."""


class CompleteRunCommand(_ClosingCommand):
    """Close it with a result."""

    event_type: int = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED

    def __init__(self, result: Payloads | None) -> None:
        self.result = result

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION)
        command.complete_workflow_execution_command_attributes.SetInParent()
        if self.result is not None:
            command.complete_workflow_execution_command_attributes.result.CopyFrom(self.result)
        return command

    def describe(self) -> str:
        return "completed the run"


class FailRunCommand(_ClosingCommand):
    """Close it with a failure."""

    event_type: int = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED

    def __init__(self, failure: Failure) -> None:
        self.failure = failure

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION)
        command.fail_workflow_execution_command_attributes.failure.CopyFrom(self.failure)
        return command

    def describe(self) -> str:
        return f"failed the run ({self.failure.message})"


class CancelRunCommand(_ClosingCommand):
    """Close it as cancelled."""

    event_type: int = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION)
        command.cancel_workflow_execution_command_attributes.SetInParent()
        return command

    def describe(self) -> str:
        return "ended the run as cancelled"


class ContinueRunCommand(_ClosingCommand):
    """Close it, and go on in a new one."""

    event_type: int = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW

    def __init__(self, attributes: ContinueAsNewWorkflowExecutionCommandAttributes) -> None:
        self.attributes = attributes

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION)
        command.continue_as_new_workflow_execution_command_attributes.CopyFrom(self.attributes)
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        name = self.attributes.workflow_type.name
        return not name or name == _continued_as(event)

    def describe(self) -> str:
        name = self.attributes.workflow_type.name
        return f"continued the run as new, as {name!r}" if name else "continued the run as new"


ClosingCommand = CompleteRunCommand | FailRunCommand | CancelRunCommand | ContinueRunCommand


def _continued_as(event: HistoryEvent) -> str:
    return event.workflow_execution_continued_as_new_event_attributes.workflow_type.name


def _started(_: Parts, code: RunCode, event: HistoryEvent) -> None:
    code.create(event)


MACHINE: Final = Machine(
    name="lifecycle",
    commands={
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED: lambda _: "the completion of the run",
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED: lambda _: "the failure of the run",
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED: (
            lambda _: "the cancellation of the run"
        ),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW: (
            lambda event: f"the continuation of the run as new, as {_continued_as(event)!r}"
        ),
    },
    events={history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: _started},
    ignored=frozenset(
        {
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_PAUSED,
            history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UNPAUSED,
        }
    ),
)
