"""The updates of one run: who handles them, and how far each has come.

    requested ──accepted──► accepting ──recorded──► open ──────done──► completing ──recorded──►
        │                       └──────done──────► done early ──recorded──┘            completed
        └──rejected──► rejected

An update is judged once, by its validator, when its task is in hand; what the history has accepted
is not judged again. A handler that is async runs beside the run method until it is done.
"""

import asyncio
import contextvars
import inspect
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, cast

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import HistoryEvent, UpdateOutcome, UpdateRequest
from aetheris_client.errors import ApplicationError, PayloadEncodeError
from aetheris_client.failure import to_failure
from aetheris_client.signatures import signature_of
from aetheris_worker.runtime.definitions import (
    Function,
    HandlerDefinition,
    HandlerUnfinishedPolicy,
    WorkflowDefinition,
)
from aetheris_worker.runtime.errors import (
    PASSING,
    ForbiddenCallError,
    ReadOnlyError,
    fault_behind,
)
from aetheris_worker.runtime.machine import Machine
from aetheris_worker.runtime.parts import RunPart, RunScope
from aetheris_worker.runtime.transitions import next_state

_LOGGER: Final = logging.getLogger("aetheris.workflow")


@dataclass(frozen=True, slots=True)
class UpdateInfo:
    """The update whose handler or validator is at work. `name` is its handler's."""

    id: str
    name: str


current_update: Final[contextvars.ContextVar[UpdateInfo | None]] = contextvars.ContextVar(
    "aetheris_update", default=None
)
"""Of the code that runs; None outside of handlers."""


class UpdateStage(IntEnum):
    """Where an update stands."""

    REQUESTED = 1
    REJECTED = 2
    ACCEPTING = 3
    OPEN = 4
    DONE_EARLY = 5
    COMPLETING = 6
    COMPLETED = 7


class UpdateInput(IntEnum):
    """What can happen to it."""

    REJECT = 1
    ACCEPT = 2
    ACCEPTANCE_RECORDED = 3
    DONE = 4
    OUTCOME_RECORDED = 5


TRANSITIONS: Final[dict[tuple[UpdateStage, UpdateInput], UpdateStage]] = {
    (UpdateStage.REQUESTED, UpdateInput.REJECT): UpdateStage.REJECTED,
    (UpdateStage.REQUESTED, UpdateInput.ACCEPT): UpdateStage.ACCEPTING,
    (UpdateStage.ACCEPTING, UpdateInput.ACCEPTANCE_RECORDED): UpdateStage.OPEN,
    (UpdateStage.ACCEPTING, UpdateInput.DONE): UpdateStage.DONE_EARLY,
    (UpdateStage.DONE_EARLY, UpdateInput.ACCEPTANCE_RECORDED): UpdateStage.COMPLETING,
    (UpdateStage.OPEN, UpdateInput.DONE): UpdateStage.COMPLETING,
    (UpdateStage.COMPLETING, UpdateInput.OUTCOME_RECORDED): UpdateStage.COMPLETED,
}


class UpdateMachine:
    """One update, from when it came."""

    def __init__(self, update_id: str, name: str) -> None:
        self.info = UpdateInfo(update_id, name)
        self.state = UpdateStage.REQUESTED

    def move(self, cause: UpdateInput) -> None:
        """Follow the table."""
        self.state = next_state(TRANSITIONS, self.state, cause, f"update {self.info.id!r}")


@dataclass(frozen=True, slots=True)
class UpdateHandler:
    """What is called for an update.

    Attributes:
        function: Called with `leading` and then the update's own arguments; a dynamic one with the
            update's name and the list of them.
        validator: Called in the same way before it; raises to reject. None accepts all.
        is_dynamic: It takes the updates that have no handler of their own.
    """

    function: Function
    validator: Function | None = None
    leading: tuple[object, ...] = ()
    is_dynamic: bool = False
    unfinished_policy: HandlerUnfinishedPolicy = HandlerUnfinishedPolicy.WARN_AND_ABANDON

    @staticmethod
    def of(definition: HandlerDefinition, instance: object, *, is_dynamic: bool) -> "UpdateHandler":
        """A method's, of the run's instance."""
        return UpdateHandler(
            definition.method,
            definition.validator,
            (instance,),
            is_dynamic,
            definition.unfinished_policy,
        )


@dataclass(slots=True)
class _Running:
    machine: UpdateMachine
    handler: UpdateHandler


class UpdateBox(RunPart):
    """See the module.

    Attributes:
        on_error: Called with what a handler raised that fails the workflow task.
        fails_update: Whether an error is one that a handler fails with, and the task does not.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.on_error: Callable[[BaseException], None] | None = None
        self.fails_update: Callable[[BaseException], bool] | None = None
        self._handlers: dict[str, UpdateHandler] = {}
        self._dynamic: UpdateHandler | None = None
        self._running: dict[asyncio.Task[None], _Running] = {}
        self._rejections: list[tuple[str, BaseException]] = []

    @property
    def handlers(self) -> Mapping[str, UpdateHandler]:
        """By name, without the dynamic one."""
        return self._handlers

    @property
    def all_finished(self) -> bool:
        """No async handler is at work."""
        return not self._running

    def bind(self, definition: WorkflowDefinition, instance: object) -> None:
        """Take the handlers of the class. Those that the instance's constructor has set stay."""
        for name, handler in definition.updates.items():
            own = UpdateHandler.of(handler, instance, is_dynamic=False)
            self._handlers.setdefault(name, own)
        if definition.dynamic_update is not None and self._dynamic is None:
            self._dynamic = UpdateHandler.of(definition.dynamic_update, instance, is_dynamic=True)

    def set_handler(self, name: str | None, handler: UpdateHandler | None) -> None:
        """From now on this one, or none, handles the updates of the name, or those of no other
        handler.
        """
        self.scope.loop.check_writable("setting an update handler")
        if name is None:
            self._dynamic = handler
        elif handler is None:
            self._handlers.pop(name, None)
        else:
            self._handlers[name] = handler

    def take_rejections(self) -> list[tuple[str, BaseException]]:
        """The ids of the updates that were not accepted since this was last asked, and why."""
        rejections, self._rejections = self._rejections, []
        return rejections

    def judge(self, request: UpdateRequest) -> bool:
        """Reject an update, or not: then it is to be delivered. The code does not move.

        Raises:
            Exception: The validator did what it must not.
        """
        try:
            self._validate(request)
        except _RejectedError as rejected:
            self._reject(UpdateMachine(request.update_id, request.name), rejected.reason)
            return False
        return True

    def deliver(self, request: UpdateRequest, is_judged: bool) -> None:
        """Judge an update, unless that is done, and call its handler if it is accepted."""
        machine = UpdateMachine(request.update_id, request.name)
        try:
            if not is_judged:
                self._validate(request)
            handler = self._handler_of(request)
            arguments = self._decode(handler, request)
        except _RejectedError as rejected:
            self._reject(machine, rejected.reason)
            return
        except Exception as error:  # noqa: BLE001 - the workflow task fails with it
            self._report(error)
            return
        machine.move(UpdateInput.ACCEPT)
        self.scope.commands.add(AcceptUpdateCommand(machine))
        self._call(machine, handler, arguments)

    def warn_at_end(self, label: str) -> None:
        """The run has ended: say which handlers that leaves undone."""
        ending = asyncio.current_task()
        unfinished = Counter(
            running.machine.info.name
            for task, running in self._running.items()
            if task is not ending
            and running.handler.unfinished_policy is HandlerUnfinishedPolicy.WARN_AND_ABANDON
        )
        if unfinished:
            _LOGGER.warning(
                "%s ended while update handlers were still running, which are abandoned, and whose "
                "callers get an error: %s. To wait for them: @workflow.defn("
                "waits_for_handlers=True); where that is meant: @workflow.update("
                "unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)",
                label,
                ", ".join(f"{name!r} ({count})" for name, count in unfinished.items()),
            )

    def _handler_of(self, request: UpdateRequest) -> UpdateHandler:
        handler = self._handlers.get(request.name) or self._dynamic
        if handler is None:
            known = ", ".join(map(repr, sorted(self._handlers))) or "none"
            raise _RejectedError(
                ApplicationError(
                    f"update {request.name!r} has no handler; the workflow has {known}",
                    type="UpdateHandlerNotFound",
                    non_retryable=True,
                )
            )
        return handler

    def _validate(self, request: UpdateRequest) -> None:
        """Ask the validator.

        Raises:
            _RejectedError: It does not let the update pass, or there is nobody who could take it.
        """
        handler = self._handler_of(request)
        arguments = self._decode(handler, request)
        if handler.validator is None:
            return
        loop = self.scope.loop
        token = current_update.set(UpdateInfo(request.update_id, request.name))
        loop.read_only = True
        try:
            handler.validator(*arguments)
        except (ReadOnlyError, ForbiddenCallError, *PASSING):
            raise
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the caller hears of it
            raise _RejectedError(error) from None
        finally:
            loop.read_only = False
            current_update.reset(token)

    def _decode(self, handler: UpdateHandler, request: UpdateRequest) -> Sequence[object]:
        """The arguments, anew for each call: a validator may change those that it gets.

        Raises:
            _RejectedError: They are not what the handler takes.
        """
        converter = self.scope.converter
        try:
            if handler.is_dynamic:
                values: Sequence[object] = converter.from_payloads(request.input)
                return (*handler.leading, request.name, values)
            signature = signature_of(handler.function)
            count = len(request.input.payloads)
            if not signature.accepts(count):
                raise TypeError(f"update {request.name!r} came with {count} arguments")
            values = converter.from_payloads(request.input, signature.types_of(count))
        except Exception as error:  # noqa: BLE001 - converters raise what they please
            if isinstance(fault_behind(error), ForbiddenCallError):
                # A fault of the types' code, which no other input mends.
                raise fault_behind(error) from None
            raise _RejectedError(error) from None
        return (*handler.leading, *values)

    def _reject(self, machine: UpdateMachine, reason: BaseException) -> None:
        machine.move(UpdateInput.REJECT)
        self._rejections.append((machine.info.id, reason))

    def _call(
        self, machine: UpdateMachine, handler: UpdateHandler, arguments: Sequence[object]
    ) -> None:
        function = handler.function
        if not _is_async(function):
            token = current_update.set(machine.info)
            try:
                result = function(*arguments)
            except PASSING:
                raise
            except BaseException as error:  # noqa: BLE001 - decided there
                self._fail(machine, error)
                return
            finally:
                current_update.reset(token)
            if not inspect.iscoroutine(result):
                self._complete(machine, handler, result)
                return
            # Of an async handler behind a plain decorator or lambda.
            function, arguments = (lambda: result), ()
        task = self.scope.loop.create_task(
            self._guard(machine, handler, function, arguments),
            name=f"update {machine.info.name} {machine.info.id}",
        )
        self._running[task] = _Running(machine, handler)
        task.add_done_callback(self._forget)

    # Makes the user's coroutine itself: one that is made for a task that never begins would warn
    # that it was never awaited.
    async def _guard(
        self,
        machine: UpdateMachine,
        handler: UpdateHandler,
        function: Function,
        arguments: Sequence[object],
    ) -> None:
        # The task has a context of its own.
        current_update.set(machine.info)
        try:
            result = await cast(Callable[..., Awaitable[object]], function)(*arguments)
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001 - decided there
            self._fail(machine, error)
        else:
            self._complete(machine, handler, result)

    def _forget(self, task: "asyncio.Task[None]") -> None:
        self._running.pop(task, None)

    def _complete(self, machine: UpdateMachine, handler: UpdateHandler, result: object) -> None:
        types = [signature_of(handler.function).result_type]
        try:
            payloads = self.scope.converter.to_payloads([result], types)
        except PayloadEncodeError as error:
            # By its number it would look like an argument.
            path = f"result{error.path.removeprefix('[0]')}"
            self._report(PayloadEncodeError(error.type_name, path, error.reason))
            return
        except Exception as error:  # noqa: BLE001 - converters raise what they please
            self._report(error)
            return
        self._settle(machine, UpdateOutcome(success=payloads or Payloads()))

    def _fail(self, machine: UpdateMachine, error: BaseException) -> None:
        assert self.fails_update is not None
        if not isinstance(error, asyncio.CancelledError) and not self.fails_update(error):
            self._report(error)
            return
        try:
            failure = to_failure(error, self.scope.converter)
        except Exception as reason:  # noqa: BLE001 - the workflow task fails with it
            self._report(reason)
        else:
            self._settle(machine, UpdateOutcome(failure=failure))

    def _settle(self, machine: UpdateMachine, outcome: UpdateOutcome) -> None:
        machine.move(UpdateInput.DONE)
        self.scope.commands.add(CompleteUpdateCommand(machine, outcome))

    def _report(self, error: BaseException) -> None:
        assert self.on_error is not None
        self.on_error(error)


class _RejectedError(Exception):
    """The update is not accepted, for that reason."""

    def __init__(self, reason: BaseException) -> None:
        super().__init__(reason)
        self.reason = reason


class AcceptUpdateCommand:
    """It goes on from here."""

    event_type: int = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED
    is_withdrawn: bool = False

    def __init__(self, machine: UpdateMachine) -> None:
        self._machine = machine

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_PROTOCOL_MESSAGE)
        command.protocol_message_command_attributes.message_id = self._machine.info.id
        command.protocol_message_command_attributes.acceptance.SetInParent()
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        accepted = event.workflow_execution_update_accepted_event_attributes
        return accepted.update_id == self._machine.info.id

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._machine.move(UpdateInput.ACCEPTANCE_RECORDED)

    def describe(self) -> str:
        return f"accepted update {self._machine.info.id!r} ({self._machine.info.name!r})"


class CompleteUpdateCommand:
    """Its handler has ended."""

    event_type: int = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED
    is_withdrawn: bool = False

    def __init__(self, machine: UpdateMachine, outcome: UpdateOutcome) -> None:
        self._machine = machine
        self._outcome = outcome

    def to_proto(self) -> Command:
        command = Command(command_type=command_pb2.COMMAND_TYPE_PROTOCOL_MESSAGE)
        command.protocol_message_command_attributes.message_id = self._machine.info.id
        command.protocol_message_command_attributes.outcome.CopyFrom(self._outcome)
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        completed = event.workflow_execution_update_completed_event_attributes
        return completed.update_id == self._machine.info.id

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._machine.move(UpdateInput.OUTCOME_RECORDED)

    def describe(self) -> str:
        return f"completed update {self._machine.info.id!r} ({self._machine.info.name!r})"


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(cast(Any, function), "__call__", None)  # noqa: B004 - its own, not whether it has one
    )


def _describe_accepted(event: HistoryEvent) -> str:
    accepted = event.workflow_execution_update_accepted_event_attributes
    return f"the acceptance of update {accepted.update_id!r} ({accepted.accepted_request.name!r})"


def _describe_completed(event: HistoryEvent) -> str:
    completed = event.workflow_execution_update_completed_event_attributes
    return f"the outcome of update {completed.update_id!r}"


MACHINE: Final = Machine(
    name="update",
    commands={
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: _describe_accepted,
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED: _describe_completed,
    },
)
