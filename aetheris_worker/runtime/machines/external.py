"""What code asks of other runs: to take a signal, to cancel.

Each is waited for until the server says that it was done, or why not. One that is given up in the
activation that asked for it leaves no command at all; a later one is on its way, and only the wait
for it ends.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, Final

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.common_pb2 import Payloads, WorkflowExecution
from aetheris.api.v1.history_pb2 import (
    CancelExternalWorkflowFailedCause,
    HistoryEvent,
    SignalExternalWorkflowFailedCause,
)
from aetheris_client.errors import ApplicationError
from aetheris_worker.runtime.errors import HistoryError
from aetheris_worker.runtime.futures import WorkflowFuture
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.parts import Parts, RunPart, RunScope
from aetheris_worker.runtime.transitions import next_state


class ExternalStage(IntEnum):
    """Where a request to another run stands."""

    ASKING = 1
    WITHDRAWN = 2
    ASKED = 3
    CLOSED = 4


class ExternalInput(IntEnum):
    """What can happen to it."""

    ASK_RECORDED = 1
    GIVE_UP = 2
    CLOSE = 3


TRANSITIONS: Final[dict[tuple[ExternalStage, ExternalInput], ExternalStage]] = {
    (ExternalStage.ASKING, ExternalInput.ASK_RECORDED): ExternalStage.ASKED,
    (ExternalStage.ASKING, ExternalInput.GIVE_UP): ExternalStage.WITHDRAWN,
    # It is on its way.
    (ExternalStage.ASKED, ExternalInput.GIVE_UP): ExternalStage.ASKED,
    (ExternalStage.ASKED, ExternalInput.CLOSE): ExternalStage.CLOSED,
}


class RunTarget:
    """Whom a request is for.

    Attributes:
        run_id: Empty for the newest run of the workflow id.
        is_child: Only a child of this run will do.
    """

    __slots__ = ("is_child", "namespace", "run_id", "workflow_id")

    def __init__(
        self, workflow_id: str, run_id: str = "", *, namespace: str = "", is_child: bool = False
    ) -> None:
        self.workflow_id = workflow_id
        self.run_id = run_id
        self.namespace = namespace
        self.is_child = is_child

    def matches(self, execution: WorkflowExecution) -> bool:
        """Whether an event is about this target."""
        return (self.workflow_id, self.run_id) == (execution.workflow_id, execution.run_id)

    def write(self, attributes: Any) -> None:
        """Into a command's attributes."""
        attributes.namespace = self.namespace
        attributes.workflow_execution.workflow_id = self.workflow_id
        attributes.workflow_execution.run_id = self.run_id
        attributes.child_workflow_only = self.is_child

    def __str__(self) -> str:
        return f"workflow {self.workflow_id!r}" + (f" run {self.run_id!r}" if self.run_id else "")


class RequestFuture(WorkflowFuture[None]):
    """Done when the other run has taken the request. To cancel it is to wait no longer."""

    def __init__(self, scope: RunScope, give_up: Callable[[], None]) -> None:
        super().__init__(scope.loop, scope.loop.next_hash())
        self._give_up: Callable[[], None] | None = give_up

    def cancel(self, msg: object = None) -> bool:
        if not self.done() and self._give_up is not None:
            self._give_up()
            self.let_go()
        return super().cancel(msg)

    def let_go(self) -> None:
        """There is nothing left to give up, nor a reason to refer to it."""
        self._give_up = None


class ExternalMachine:
    """Sends one request.

    Attributes:
        future: What is waited for.
        what: For people, as in "signal 'go' to workflow 'w'".
    """

    def __init__(self, target: RunTarget, what: str, scope: RunScope) -> None:
        self.target = target
        self.what = what
        self.state = ExternalStage.ASKING
        self.future = RequestFuture(scope, self.give_up)

    @property
    def is_withdrawn(self) -> bool:
        """Whether it is not to go out."""
        return self.state is ExternalStage.WITHDRAWN

    def give_up(self) -> None:
        """The code waits for it no longer."""
        self.move(ExternalInput.GIVE_UP)

    def close(self, cause: str | None) -> None:
        """It was done, or failed for a cause."""
        self.move(ExternalInput.CLOSE)
        self.future.let_go()
        if self.future.done():
            return
        if cause is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(
                ApplicationError(
                    f"{self.what} failed: {_REASONS.get(cause, cause)}",
                    type=_to_type(cause),
                    non_retryable=True,
                )
            )

    def move(self, cause: ExternalInput) -> None:
        """Follow the table."""
        self.state = next_state(TRANSITIONS, self.state, cause, self.what)


_REASONS: Final = {
    "EXTERNAL_WORKFLOW_EXECUTION_NOT_FOUND": "there is no such run, or it has closed",
    "NAMESPACE_NOT_FOUND": "there is no such namespace",
    "SIGNAL_COUNT_LIMIT_EXCEEDED": "the run has had as many signals as it may",
}


def _to_type(cause: str) -> str:
    """`NAMESPACE_NOT_FOUND` is `NamespaceNotFound`."""
    return cause.title().replace("_", "")


class ExternalRequests(RunPart):
    """What one run asks of others.

    Attributes:
        asked: Those whose events are known and that nothing has come of yet, by those events.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.asked: dict[int, ExternalMachine] = {}

    @property
    def is_waiting(self) -> bool:
        return bool(self.asked)

    def signal(
        self,
        target: RunTarget,
        name: str,
        arguments: Sequence[object],
        argument_types: Sequence[object],
    ) -> RequestFuture:
        """Send a signal.

        Raises:
            PayloadEncodeError: An argument has no encoding.
        """
        self.scope.loop.check_writable("signalling another run")
        payloads = self.scope.converter.to_payloads(arguments, argument_types)
        machine = ExternalMachine(target, f"signal {name!r} to {target}", self.scope)
        self.scope.commands.add(SignalExternalCommand(machine, name, payloads, self.asked))
        return machine.future

    def cancel(self, target: RunTarget, reason: str = "") -> RequestFuture:
        """Ask a run to cancel."""
        self.scope.loop.check_writable("cancelling another run")
        machine = ExternalMachine(target, f"request to cancel {target}", self.scope)
        self.scope.commands.add(CancelExternalCommand(machine, reason, self.asked))
        return machine.future

    def close(self, initiated_event_id: int, event: HistoryEvent, cause: str | None) -> None:
        """The event is in the history: something has come of one."""
        machine = self.asked.pop(initiated_event_id, None)
        if machine is None:
            raise HistoryError(
                f"event {event.event_id} ends the request of event {initiated_event_id}, "
                "which is not open"
            )
        machine.close(cause)


class _RequestCommand:
    def __init__(self, machine: ExternalMachine, asked: dict[int, ExternalMachine]) -> None:
        self._machine = machine
        self._asked = asked

    @property
    def is_withdrawn(self) -> bool:
        return self._machine.is_withdrawn

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._machine.move(ExternalInput.ASK_RECORDED)
        self._asked[event.event_id] = self._machine

    def describe(self) -> str:
        return f"sent a {self._machine.what}"


class SignalExternalCommand(_RequestCommand):
    """Signal another run."""

    event_type: int = history_pb2.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED

    def __init__(
        self,
        machine: ExternalMachine,
        name: str,
        arguments: Payloads | None,
        asked: dict[int, ExternalMachine],
    ) -> None:
        super().__init__(machine, asked)
        self._name = name
        self._arguments = arguments

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION)
        attributes = command.signal_external_workflow_execution_command_attributes
        self._machine.target.write(attributes)
        attributes.signal_name = self._name
        if self._arguments is not None:
            attributes.input.CopyFrom(self._arguments)
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        initiated = event.signal_external_workflow_execution_initiated_event_attributes
        return initiated.signal_name == self._name and self._machine.target.matches(
            initiated.workflow_execution
        )


class CancelExternalCommand(_RequestCommand):
    """Ask another run to cancel."""

    event_type: int = history_pb2.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED

    def __init__(
        self, machine: ExternalMachine, reason: str, asked: dict[int, ExternalMachine]
    ) -> None:
        super().__init__(machine, asked)
        self._reason = reason

    def to_proto(self) -> Command:
        command = Command(
            command_type=command_pb2.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION
        )
        attributes = command.request_cancel_external_workflow_execution_command_attributes
        self._machine.target.write(attributes)
        attributes.reason = self._reason
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        initiated = event.request_cancel_external_workflow_execution_initiated_event_attributes
        return self._machine.target.matches(initiated.workflow_execution)


def _signaled(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    done = event.external_workflow_execution_signaled_event_attributes
    parts.make(ExternalRequests).close(done.initiated_event_id, event, None)


def _signal_failed(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    failed = event.signal_external_workflow_execution_failed_event_attributes
    cause = SignalExternalWorkflowFailedCause.Name(failed.cause)
    cause = cause.removeprefix("SIGNAL_EXTERNAL_WORKFLOW_FAILED_CAUSE_")
    parts.make(ExternalRequests).close(failed.initiated_event_id, event, cause)


def _cancel_requested(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    done = event.external_workflow_execution_cancel_requested_event_attributes
    parts.make(ExternalRequests).close(done.initiated_event_id, event, None)


def _cancel_failed(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    failed = event.request_cancel_external_workflow_execution_failed_event_attributes
    cause = CancelExternalWorkflowFailedCause.Name(failed.cause)
    cause = cause.removeprefix("CANCEL_EXTERNAL_WORKFLOW_FAILED_CAUSE_")
    parts.make(ExternalRequests).close(failed.initiated_event_id, event, cause)


def _describe_signal(event: HistoryEvent) -> str:
    initiated = event.signal_external_workflow_execution_initiated_event_attributes
    workflow_id = initiated.workflow_execution.workflow_id
    return f"signal {initiated.signal_name!r} to workflow {workflow_id!r}"


def _describe_cancel(event: HistoryEvent) -> str:
    initiated = event.request_cancel_external_workflow_execution_initiated_event_attributes
    return f"a request to cancel workflow {initiated.workflow_execution.workflow_id!r}"


MACHINE: Final = Machine(
    name="external",
    commands={
        history_pb2.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED: _describe_signal,
        history_pb2.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED: (
            _describe_cancel
        ),
    },
    events={
        history_pb2.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_SIGNALED: _signaled,
        history_pb2.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED: _signal_failed,
        history_pb2.EVENT_TYPE_EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED: _cancel_requested,
        history_pb2.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED: _cancel_failed,
    },
)
