"""One child of a run, as its workflow sees it.

It is waited for twice: that it has started, and how it ended. A child that is cancelled in the
activation that asked for it leaves no command at all; one that is cancelled before it is known to
have started is asked to cancel as soon as it has. As with activities, who awaits what the code
itself cancelled gets asyncio.CancelledError; ChildWorkflowError caused by CancelledError is a child
that cancelled unasked.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import IntEnum
from typing import Any, Final, TypeVar, cast

from aetheris.api.v1 import command_pb2, failure_pb2, history_pb2, workflow_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.common_pb2 import Payload, Payloads, SearchAttributes
from aetheris.api.v1.failure_pb2 import Failure, RetryState
from aetheris.api.v1.history_pb2 import HistoryEvent, StartChildWorkflowFailedCause
from aetheris_client.converter import DataConverter
from aetheris_client.definition import signal_name, types_of_call
from aetheris_client.enums import WorkflowIdReusePolicy, to_proto
from aetheris_client.errors import PayloadEncodeError
from aetheris_client.failure import from_failure
from aetheris_client.options import check_options, check_text
from aetheris_client.retry import RetryPolicy
from aetheris_client.search_attributes import to_search_attributes
from aetheris_worker.durations import check_timeout
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.errors import HistoryError, fault_behind
from aetheris_worker.runtime.futures import WorkflowFuture
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.machines.external import ExternalRequests, RequestFuture, RunTarget
from aetheris_worker.runtime.parts import Parts, RunPart, RunScope
from aetheris_worker.runtime.transitions import next_state

R = TypeVar("R")


class ChildWorkflowCancellationType(enum.Enum):
    """What the workflow does about a child that it cancels."""

    TRY_CANCEL = enum.auto()
    """Ask it to cancel, and go on at once."""
    WAIT_CANCELLATION_COMPLETED = enum.auto()
    """Ask it to cancel, and go on when it has ended, however it ends."""
    WAIT_CANCELLATION_REQUESTED = enum.auto()
    """Ask it to cancel, and go on when the request is in its history."""
    ABANDON = enum.auto()
    """Go on at once and let it run."""


class ParentClosePolicy(enum.Enum):
    """What becomes of a child when its parent closes."""

    TERMINATE = enum.auto()
    """It is terminated."""
    ABANDON = enum.auto()
    """It goes on."""
    REQUEST_CANCEL = enum.auto()
    """It is asked to cancel."""


@dataclass(frozen=True, slots=True)
class ChildOptions:
    """How a child is to be run."""

    task_queue: str
    cancellation_type: ChildWorkflowCancellationType
    parent_close_policy: ParentClosePolicy
    id_reuse_policy: WorkflowIdReusePolicy | None
    execution_timeout: timedelta | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    memo: Mapping[str, object]
    search_attributes: Mapping[str, object]

    def check(self, workflow_type: str) -> None:
        """Refuse what the server would refuse, where the code asks for it.

        Raises:
            TypeError: An option is of the wrong kind.
            ValueError: A timeout is out of range, or a text is none that UTF-8 can tell.
        """
        check_text("the name of a workflow", workflow_type)
        timeouts = {
            "execution_timeout": self.execution_timeout,
            "run_timeout": self.run_timeout,
            "task_timeout": self.task_timeout,
        }
        check_options(
            "child workflow",
            **timeouts,
            task_queue=self.task_queue,
            id_reuse_policy=self.id_reuse_policy,
            memo=self.memo,
            search_attributes=self.search_attributes,
        )
        for name, timeout in timeouts.items():
            check_timeout(name, timeout)
        for name, value, kind in (
            ("cancellation_type", self.cancellation_type, ChildWorkflowCancellationType),
            ("parent_close_policy", self.parent_close_policy, ParentClosePolicy),
            ("retry_policy", self.retry_policy, RetryPolicy),
        ):
            given = cast(object, value)
            if given is not None and not isinstance(given, kind):
                raise TypeError(
                    f"child workflow: option {name!r}: expected a {kind.__name__}, found {given!r}"
                )


class ChildStage(IntEnum):
    """Where a child stands, in the eyes of its workflow."""

    STARTING = 1
    WITHDRAWN = 2
    INITIATED = 3
    CANCEL_PENDING = 4
    STARTED = 5
    CANCELLING = 6
    ABANDONED = 7
    CLOSED = 8


class ChildInput(IntEnum):
    """What can happen to it."""

    INITIATE_RECORDED = 1
    START = 2
    FAIL_START = 3
    CANCEL = 4
    ABANDON = 5
    CLOSE = 6


TRANSITIONS: Final[dict[tuple[ChildStage, ChildInput], ChildStage]] = {
    (ChildStage.STARTING, ChildInput.INITIATE_RECORDED): ChildStage.INITIATED,
    (ChildStage.STARTING, ChildInput.CANCEL): ChildStage.WITHDRAWN,
    (ChildStage.STARTING, ChildInput.ABANDON): ChildStage.WITHDRAWN,
    (ChildStage.INITIATED, ChildInput.START): ChildStage.STARTED,
    (ChildStage.INITIATED, ChildInput.FAIL_START): ChildStage.CLOSED,
    (ChildStage.INITIATED, ChildInput.CANCEL): ChildStage.CANCEL_PENDING,
    (ChildStage.INITIATED, ChildInput.ABANDON): ChildStage.ABANDONED,
    # The request waits for the child, or it would find nobody.
    (ChildStage.CANCEL_PENDING, ChildInput.START): ChildStage.CANCELLING,
    (ChildStage.CANCEL_PENDING, ChildInput.FAIL_START): ChildStage.CLOSED,
    (ChildStage.CANCEL_PENDING, ChildInput.CANCEL): ChildStage.CANCEL_PENDING,
    (ChildStage.STARTED, ChildInput.CANCEL): ChildStage.CANCELLING,
    (ChildStage.STARTED, ChildInput.ABANDON): ChildStage.ABANDONED,
    (ChildStage.STARTED, ChildInput.CLOSE): ChildStage.CLOSED,
    # Asking again asks for nothing new.
    (ChildStage.CANCELLING, ChildInput.CANCEL): ChildStage.CANCELLING,
    (ChildStage.CANCELLING, ChildInput.CLOSE): ChildStage.CLOSED,
    (ChildStage.ABANDONED, ChildInput.START): ChildStage.ABANDONED,
    (ChildStage.ABANDONED, ChildInput.FAIL_START): ChildStage.CLOSED,
    (ChildStage.ABANDONED, ChildInput.CLOSE): ChildStage.CLOSED,
}


class _ChildFuture(WorkflowFuture[R]):
    """One of the two that wait for a child. To cancel either is to cancel the child."""

    def __init__(self, scope: RunScope, cancel: Callable[[], bool]) -> None:
        super().__init__(scope.loop, scope.loop.next_hash())
        self._cancel_child: Callable[[], bool] | None = cancel
        self._cancel_message: object = None

    def cancel(self, msg: object = None) -> bool:
        """Cancel the child as its cancellation_type says; False if it has ended already.

        Who awaits this gets asyncio.CancelledError: at once, or when the request is in the child's
        history, or when the child has cancelled; if it ends otherwise after all, its result or
        error.
        """
        if self.done() or self._cancel_child is None:
            return False
        self._cancel_message = msg
        if self._cancel_child():
            super().cancel(msg)
        return True

    def end_cancelled(self) -> None:
        """The child was cancelled, as it was asked to."""
        if not self.done():
            super().cancel(self._cancel_message)

    def let_go(self) -> None:
        """The child has ended: there is nothing left to cancel, nor a reason to refer to it."""
        self._cancel_child = None


class ChildWorkflowHandle(_ChildFuture[R]):
    """A child that has started: await it for its result. `cancel` as its cancellation_type says.

    Attributes:
        id: Its workflow id.
        first_execution_run_id: The first run of its chain.
    """

    def __init__(
        self, scope: RunScope, cancel: Callable[[], bool], id_: str, requests: ExternalRequests
    ) -> None:
        super().__init__(scope, cancel)
        self.id = id_
        self.first_execution_run_id = ""
        self._requests = requests

    async def signal(self, signal: str | Callable[..., object], *arguments: object) -> None:
        """Signal the child; returns when the signal is in its history.

        Args:
            signal: A handler method of the child's workflow, or a signal's name.
            arguments: Of the handler.

        Raises:
            ApplicationError: The child has closed: type ExternalWorkflowExecutionNotFound.
            PayloadEncodeError: An argument has no encoding.
        """
        await send_signal(self._requests, RunTarget(self.id, is_child=True), signal, arguments)


def send_signal(
    requests: ExternalRequests,
    target: RunTarget,
    signal: str | Callable[..., object],
    arguments: Sequence[object],
) -> RequestFuture:
    """Send a signal that a name or a handler stands for."""
    name = signal_name(signal)
    types, _ = types_of_call(signal, len(arguments))
    return requests.signal(target, name, arguments, types)


class ChildMachine:
    """Sends StartChildWorkflowExecution, and a request to cancel if it is cancelled in time.

    Attributes:
        started: Done when the child has started.
        handle: Done when it has ended.
    """

    def __init__(
        self,
        workflow_id: str,
        workflow_type: str,
        arguments: Payloads | None,
        options: ChildOptions,
        result_type: object,
        scope: RunScope,
        requests: ExternalRequests,
    ) -> None:
        self.workflow_id = workflow_id
        self.workflow_type = workflow_type
        self.arguments = arguments
        self.options = options
        self.initiated_event_id = 0
        self.state = ChildStage.STARTING
        self.started: _ChildFuture[ChildWorkflowHandle[Any]] = _ChildFuture(scope, self.cancel)
        self.handle: ChildWorkflowHandle[Any] = ChildWorkflowHandle(
            scope, self.cancel, workflow_id, requests
        )
        self._is_cancel_asked = False
        self._result_type = result_type
        self._scope = scope
        self._requests = requests

    def cancel(self) -> bool:
        """The code does not want it any more; whether it waits no longer either."""
        self._scope.loop.check_writable("cancelling a child workflow")
        was = self.state
        how = self.options.cancellation_type
        abandons = how is ChildWorkflowCancellationType.ABANDON
        self.move(ChildInput.ABANDON if abandons else ChildInput.CANCEL)
        if was is ChildStage.STARTED and self.state is ChildStage.CANCELLING:
            self._request_cancel()
        self._is_cancel_asked = True
        return (
            self.state is ChildStage.WITHDRAWN
            or abandons
            or how is ChildWorkflowCancellationType.TRY_CANCEL
        )

    def _request_cancel(self) -> None:
        asked = self._requests.cancel(RunTarget(self.workflow_id, is_child=True))
        asked.add_done_callback(self._on_cancel_answered)

    def _on_cancel_answered(self, asked: "WorkflowFuture[None]") -> None:
        # A request that comes too late fails; how the child ended is then on its way.
        has_failed = asked.exception() is not None
        waits = ChildWorkflowCancellationType.WAIT_CANCELLATION_REQUESTED
        if not has_failed and self.options.cancellation_type is waits:
            self.started.end_cancelled()
            self.handle.end_cancelled()

    def start(self, run_id: str) -> None:
        """CHILD_WORKFLOW_EXECUTION_STARTED is in the history."""
        was = self.state
        self.move(ChildInput.START)
        self.handle.first_execution_run_id = run_id
        if was is ChildStage.CANCEL_PENDING:
            self._request_cancel()
        elif not self.started.done():
            self.started.set_result(self.handle)

    def fail_start(self, cause: str) -> None:
        """START_CHILD_WORKFLOW_EXECUTION_FAILED is in the history."""
        self.move(ChildInput.FAIL_START)
        self._let_go()
        if self.started.done():
            return
        reason = _REASONS.get(cause, cause)
        failure = Failure(message=f"it was not started: {reason}")
        failure.application_failure_info.type = cause.title().replace("_", "")
        failure.application_failure_info.non_retryable = True
        self.started.set_exception(
            self._to_error(failure, 0, "", failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE)
        )

    def close(self, event: HistoryEvent) -> None:
        """The event that ends it is in the history."""
        self.move(ChildInput.CLOSE)
        self._let_go()
        is_cancelled = event.event_type == history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELLED
        if is_cancelled and self._is_cancel_asked:
            self.started.end_cancelled()
            self.handle.end_cancelled()
            return
        if not self.started.done():
            # It was cancelled before it had started, and ended otherwise after all.
            self.started.set_result(self.handle)
        if not self.handle.done():
            self._end(event)

    def _let_go(self) -> None:
        self.started.let_go()
        self.handle.let_go()

    def _end(self, event: HistoryEvent) -> None:
        match event.event_type:
            case history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED:
                completed = event.child_workflow_execution_completed_event_attributes
                self._complete(completed.result)
            case history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED:
                failed = event.child_workflow_execution_failed_event_attributes
                self._fail(failed.failure, failed, failed.retry_state)
            case history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELLED:
                cancelled = event.child_workflow_execution_cancelled_event_attributes
                failure = Failure(message="cancelled")
                failure.cancelled_failure_info.details.CopyFrom(cancelled.details)
                self._fail(failure, cancelled, failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE)
            case history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TIMED_OUT:
                timed_out = event.child_workflow_execution_timed_out_event_attributes
                failure = Failure(message="timed out")
                failure.timeout_failure_info.timeout_type = failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
                self._fail(failure, timed_out, timed_out.retry_state)
            case history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED:
                terminated = event.child_workflow_execution_terminated_event_attributes
                failure = Failure(message="terminated")
                failure.terminated_failure_info.SetInParent()
                self._fail(failure, terminated, failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE)
            case _:
                raise HistoryError(f"event {event.event_id} does not close a child")

    def _complete(self, result: Payloads) -> None:
        # Types are code too: a default that they take from the clock would be another on replay.
        was_guarded = guard.enter()
        try:
            values = self._scope.converter.from_payloads(result, [self._result_type])
        except Exception as error:  # noqa: BLE001 - converters raise what they please
            self.handle.set_exception(fault_behind(error))
        else:
            self.handle.set_result(values[0] if values else None)
        finally:
            guard.leave(was_guarded)

    def _fail(self, cause: Failure, ending: Any, retry_state: RetryState.ValueType) -> None:
        run_id = ending.workflow_execution.run_id
        error = self._to_error(cause, ending.started_event_id, run_id, retry_state)
        self.handle.set_exception(error)

    def _to_error(
        self,
        cause: Failure,
        started_event_id: int,
        run_id: str,
        retry_state: RetryState.ValueType,
    ) -> BaseException:
        failure = Failure(message=f"child workflow {self.workflow_type!r} failed", cause=cause)
        info = failure.child_workflow_failure_info
        info.workflow_execution.workflow_id = self.workflow_id
        info.workflow_execution.run_id = run_id
        info.workflow_type.name = self.workflow_type
        info.initiated_event_id = self.initiated_event_id
        info.started_event_id = started_event_id
        info.retry_state = retry_state
        return from_failure(failure, self._scope.converter)

    def move(self, cause: ChildInput) -> None:
        """Follow the table."""
        self.state = next_state(TRANSITIONS, self.state, cause, f"child {self.workflow_id!r}")


_REASONS: Final = {
    "WORKFLOW_ALREADY_EXISTS": "another run has its workflow id",
    "NAMESPACE_NOT_FOUND": "there is no such namespace",
}


class ChildWorkflows(RunPart):
    """The children of one run.

    Attributes:
        open: Those whose initiated events are known and that have not ended, by those events.
    """

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self.open: dict[int, ChildMachine] = {}

    @property
    def is_waiting(self) -> bool:
        return bool(self.open)

    def start(
        self,
        workflow_id: str,
        workflow_type: str,
        arguments: Sequence[object],
        options: ChildOptions,
        argument_types: Sequence[object],
        result_type: object,
        requests: ExternalRequests,
    ) -> WorkflowFuture[ChildWorkflowHandle[Any]]:
        """Start one; what is returned is done when it has started.

        Raises:
            TypeError, ValueError: See ChildOptions.check.
            PayloadEncodeError: An argument, or a note, has no encoding.
        """
        scope = self.scope
        scope.loop.check_writable("starting a child workflow")
        options.check(workflow_type)
        check_options("child workflow", id=workflow_id)
        machine = ChildMachine(
            workflow_id,
            workflow_type,
            scope.converter.to_payloads(arguments, argument_types),
            options,
            result_type,
            scope,
            requests,
        )
        notes = _Notes(
            _to_memo(scope.converter, options.memo), to_search_attributes(options.search_attributes)
        )
        scope.commands.add(StartChildCommand(machine, notes, self.open))
        return machine.started

    def find(self, initiated_event_id: int, event: HistoryEvent) -> ChildMachine:
        """The one that an event is about.

        Raises:
            HistoryError: It is not open.
        """
        machine = self.open.get(initiated_event_id)
        if machine is None:
            raise HistoryError(
                f"event {event.event_id} is about the child of event {initiated_event_id}, "
                "which is not open"
            )
        return machine


@dataclass(frozen=True, slots=True)
class _Notes:
    memo: dict[str, Payload]
    search_attributes: SearchAttributes | None


def _to_memo(converter: DataConverter, values: Mapping[str, object]) -> dict[str, Payload]:
    fields: dict[str, Payload] = {}
    for name, value in values.items():
        try:
            fields[name] = converter.to_payload(value)
        except PayloadEncodeError as error:
            raise error.within(f"memo {name!r}") from error.__cause__
    return fields


class StartChildCommand:
    """Start it."""

    event_type: int = history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED

    def __init__(
        self, child: ChildMachine, notes: _Notes, open_children: dict[int, ChildMachine]
    ) -> None:
        self._child = child
        self._notes = notes
        self._open = open_children

    @property
    def is_withdrawn(self) -> bool:
        return self._child.state is ChildStage.WITHDRAWN

    def to_proto(self) -> Command:
        child, options = self._child, self._child.options
        command = Command(command_type=command_pb2.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION)
        attributes = command.start_child_workflow_execution_command_attributes
        attributes.workflow_id = child.workflow_id
        attributes.workflow_type.name = child.workflow_type
        attributes.task_queue.name = options.task_queue
        if child.arguments is not None:
            attributes.input.CopyFrom(child.arguments)
        for timeout, duration in (
            (options.execution_timeout, attributes.workflow_execution_timeout),
            (options.run_timeout, attributes.workflow_run_timeout),
            (options.task_timeout, attributes.workflow_task_timeout),
        ):
            if timeout is not None:
                duration.FromTimedelta(timeout)
        attributes.parent_close_policy = workflow_pb2.ParentClosePolicy.Value(
            f"PARENT_CLOSE_POLICY_{options.parent_close_policy.name}"
        )
        if options.id_reuse_policy is not None:
            attributes.workflow_id_reuse_policy = to_proto(
                options.id_reuse_policy,
                workflow_pb2.WorkflowIdReusePolicy,
                "WORKFLOW_ID_REUSE_POLICY_",
            )
        if options.retry_policy is not None:
            attributes.retry_policy.CopyFrom(options.retry_policy.to_proto())
        for name, payload in self._notes.memo.items():
            attributes.memo.fields[name].CopyFrom(payload)
        if self._notes.search_attributes is not None:
            attributes.search_attributes.CopyFrom(self._notes.search_attributes)
        return command

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        initiated = event.start_child_workflow_execution_initiated_event_attributes
        child = self._child
        return (initiated.workflow_id, initiated.workflow_type.name) == (
            child.workflow_id,
            child.workflow_type,
        )

    def mark_recorded(self, event: HistoryEvent) -> None:
        self._child.initiated_event_id = event.event_id
        self._child.move(ChildInput.INITIATE_RECORDED)
        self._open[event.event_id] = self._child

    def describe(self) -> str:
        child = self._child
        return f"started child {child.workflow_id!r} of type {child.workflow_type!r}"


def _started(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    started = event.child_workflow_execution_started_event_attributes
    child = parts.make(ChildWorkflows).find(started.initiated_event_id, event)
    child.start(started.workflow_execution.run_id)


def _start_failed(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    failed = event.start_child_workflow_execution_failed_event_attributes
    children = parts.make(ChildWorkflows)
    child = children.find(failed.initiated_event_id, event)
    del children.open[failed.initiated_event_id]
    cause = StartChildWorkflowFailedCause.Name(failed.cause)
    child.fail_start(cause.removeprefix("START_CHILD_WORKFLOW_FAILED_CAUSE_"))


def _closing(field: str) -> Callable[[Parts, RunCode, HistoryEvent], None]:
    def close(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
        initiated_event_id = getattr(event, field).initiated_event_id
        children = parts.make(ChildWorkflows)
        child = children.find(initiated_event_id, event)
        del children.open[initiated_event_id]
        child.close(event)

    return close


def _describe_initiated(event: HistoryEvent) -> str:
    initiated = event.start_child_workflow_execution_initiated_event_attributes
    return f"the start of child {initiated.workflow_id!r} of type {initiated.workflow_type.name!r}"


MACHINE: Final = Machine(
    name="child",
    commands={history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED: _describe_initiated},
    events={
        history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED: _start_failed,
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED: _started,
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_COMPLETED: _closing(
            "child_workflow_execution_completed_event_attributes"
        ),
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_FAILED: _closing(
            "child_workflow_execution_failed_event_attributes"
        ),
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_CANCELLED: _closing(
            "child_workflow_execution_cancelled_event_attributes"
        ),
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TIMED_OUT: _closing(
            "child_workflow_execution_timed_out_event_attributes"
        ),
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_TERMINATED: _closing(
            "child_workflow_execution_terminated_event_attributes"
        ),
    },
)
