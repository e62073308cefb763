"""Builds histories as the server would write them, for tests of the worker's runtime."""

from collections.abc import Sequence
from typing import Any

from aetheris.api.v1.command_pb2 import (
    Command,
    CommandType,
    ContinueAsNewWorkflowExecutionCommandAttributes,
    RecordMarkerCommandAttributes,
)
from aetheris.api.v1.failure_pb2 import Failure, RetryState, TimeoutType
from aetheris.api.v1.history_pb2 import (
    EventType,
    HistoryEvent,
    StartChildWorkflowFailedCause,
    UpdateRequest,
    WorkflowTaskFailedCause,
)
from aetheris_client.converter import DataConverter

START_SECONDS = 1_700_000_000


class HistoryBuilder:
    """Appends events with the next id, one second apart. Every method returns the event's id."""

    def __init__(self, workflow_type: str, *arguments: object, run_id: str = "run-1") -> None:
        self.events: list[HistoryEvent] = []
        self.converter = DataConverter.default()
        self.run_id = run_id
        self.last_completed_event_id = 0
        self.requests: dict[str, UpdateRequest] = {}
        self._scheduled_event_id = 0
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED)
        started = event.workflow_execution_started_event_attributes
        started.workflow_type.name = workflow_type
        started.task_queue.name = "queue"
        started.workflow_id = "workflow-1"
        started.first_execution_run_id = run_id
        started.original_execution_run_id = run_id
        started.attempt = 1
        payloads = self.converter.to_payloads(arguments)
        if payloads is not None:
            started.input.CopyFrom(payloads)

    def add(self, event_type: EventType.ValueType) -> HistoryEvent:
        """An event with the next id and time; its attributes are the caller's affair."""
        event = HistoryEvent(event_id=len(self.events) + 1, event_type=event_type)
        event.event_time.seconds = START_SECONDS + len(self.events)
        self.events.append(event)
        return event

    def after(self, started_event_id: int) -> list[HistoryEvent]:
        """What a worker that has seen the task of this start gets next."""
        return self.events[started_event_id:]

    # Workflow tasks.

    def task_scheduled(self) -> int:
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED)
        event.workflow_task_scheduled_event_attributes.task_queue.name = "queue"
        self._scheduled_event_id = event.event_id
        return event.event_id

    def task_started(self) -> int:
        """Schedules it too, if it is not."""
        if self.events[-1].event_type != EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED:
            self.task_scheduled()
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED)
        started = event.workflow_task_started_event_attributes
        started.scheduled_event_id = self._scheduled_event_id
        started.started_time.CopyFrom(event.event_time)
        return event.event_id

    def task_completed(self, commands: Sequence[Command] = ()) -> int:
        """Ends the task, and records the commands' events."""
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED)
        completed = event.workflow_task_completed_event_attributes
        completed.scheduled_event_id = self._scheduled_event_id
        completed.started_event_id = event.event_id - 1
        self.last_completed_event_id = event.event_id
        for command in commands:
            self.record(command)
        return event.event_id

    def task(self) -> int:
        """One that was scheduled, started and completed; its commands' events are to follow."""
        self.task_started()
        return self.task_completed()

    def task_failed(self) -> int:
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
        failed = event.workflow_task_failed_event_attributes
        failed.started_event_id = event.event_id - 1
        failed.cause = (
            WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE
        )
        return event.event_id

    def begins_anew(self, new_run_id: str) -> int:
        """The task that has just started is decided anew by the run that is made here."""
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED)
        failed = event.workflow_task_failed_event_attributes
        failed.started_event_id = event.event_id - 1
        failed.cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
        failed.base_run_id, failed.new_run_id = self.run_id, new_run_id
        return event.event_id

    def task_timed_out(self) -> int:
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT)
        timed_out = event.workflow_task_timed_out_event_attributes
        timed_out.started_event_id = event.event_id - 1
        timed_out.timeout_type = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE
        return event.event_id

    # Events of commands.

    def record(self, command: Command) -> int:
        """The event that the server writes for a command."""
        match command.command_type:
            case CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK:
                scheduled = command.schedule_activity_task_command_attributes
                return self.activity_scheduled(scheduled.activity_id, scheduled.activity_type.name)
            case CommandType.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK:
                requested = command.request_cancel_activity_task_command_attributes
                return self.activity_cancel_requested(requested.scheduled_event_id)
            case CommandType.COMMAND_TYPE_START_TIMER:
                return self.timer_started(command.start_timer_command_attributes.timer_id)
            case CommandType.COMMAND_TYPE_CANCEL_TIMER:
                return self.timer_cancelled(command.cancel_timer_command_attributes.timer_id)
            case CommandType.COMMAND_TYPE_RECORD_MARKER:
                return self.marker_recorded(command.record_marker_command_attributes)
            case CommandType.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION:
                given = command.start_child_workflow_execution_command_attributes
                return self.child_initiated(given.workflow_id, given.workflow_type.name)
            case CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION:
                signal = command.signal_external_workflow_execution_command_attributes
                return self.external_signal_initiated(
                    signal.workflow_execution.workflow_id, signal.signal_name
                )
            case CommandType.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION:
                asked = command.request_cancel_external_workflow_execution_command_attributes
                return self.external_cancel_initiated(asked.workflow_execution.workflow_id)
            case _:
                return self._record_of_run(command)

    def _record_of_run(self, command: Command) -> int:
        """That of one that ends the run or changes its notes."""
        match command.command_type:
            case CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION:
                return self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED).event_id
            case CommandType.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION:
                return self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED).event_id
            case CommandType.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION:
                return self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED).event_id
            case CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION:
                return self.continued_as_new(
                    command.continue_as_new_workflow_execution_command_attributes
                )
            case CommandType.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES:
                upserted = command.modify_workflow_properties_command_attributes.upserted_memo
                event = self.add(EventType.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED)
                modified = event.workflow_properties_modified_event_attributes
                modified.upserted_memo.CopyFrom(upserted)
                return event.event_id
            case CommandType.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
                given = command.upsert_workflow_search_attributes_command_attributes
                event = self.add(EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES)
                upserted = event.upsert_workflow_search_attributes_event_attributes
                upserted.search_attributes.CopyFrom(given.search_attributes)
                return event.event_id
            case _:
                return self.update_moved(command)

    def update_moved(self, command: Command) -> int:
        """The request of an update that is accepted must be among `requests`."""
        if command.command_type != CommandType.COMMAND_TYPE_PROTOCOL_MESSAGE:
            raise NotImplementedError(command.command_type)
        step = command.protocol_message_command_attributes
        if step.HasField("acceptance"):
            event = self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED)
            accepted = event.workflow_execution_update_accepted_event_attributes
            accepted.update_id = step.message_id
            accepted.accepted_request.CopyFrom(self.requests[step.message_id])
        else:
            event = self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED)
            completed = event.workflow_execution_update_completed_event_attributes
            completed.update_id = step.message_id
            completed.outcome.CopyFrom(step.outcome)
        return event.event_id

    def continued_as_new(self, given: ContinueAsNewWorkflowExecutionCommandAttributes) -> int:
        started = self.events[0].workflow_execution_started_event_attributes
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW)
        attributes = event.workflow_execution_continued_as_new_event_attributes
        attributes.workflow_type.name = given.workflow_type.name or started.workflow_type.name
        attributes.input.CopyFrom(given.input)
        return event.event_id

    def activity_scheduled(self, activity_id: str, activity_type: str) -> int:
        event = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
        scheduled = event.activity_task_scheduled_event_attributes
        scheduled.activity_id = activity_id
        scheduled.activity_type.name = activity_type
        scheduled.workflow_task_completed_event_id = self.last_completed_event_id
        return event.event_id

    def activity_cancel_requested(self, scheduled_event_id: int) -> int:
        event = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED)
        requested = event.activity_task_cancel_requested_event_attributes
        requested.scheduled_event_id = scheduled_event_id
        return event.event_id

    def timer_started(self, timer_id: str) -> int:
        event = self.add(EventType.EVENT_TYPE_TIMER_STARTED)
        event.timer_started_event_attributes.timer_id = timer_id
        return event.event_id

    def timer_cancelled(self, timer_id: str) -> int:
        event = self.add(EventType.EVENT_TYPE_TIMER_CANCELLED)
        event.timer_cancelled_event_attributes.timer_id = timer_id
        return event.event_id

    def marker_recorded(self, given: RecordMarkerCommandAttributes) -> int:
        event = self.add(EventType.EVENT_TYPE_MARKER_RECORDED)
        marker = event.marker_recorded_event_attributes
        marker.marker_name = given.marker_name
        for name, payloads in given.details.items():
            marker.details[name].CopyFrom(payloads)
        if given.HasField("failure"):
            marker.failure.CopyFrom(given.failure)
        marker.workflow_task_completed_event_id = self.last_completed_event_id
        return event.event_id

    def child_initiated(self, workflow_id: str, workflow_type: str) -> int:
        event = self.add(EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED)
        initiated = event.start_child_workflow_execution_initiated_event_attributes
        initiated.workflow_id = workflow_id
        initiated.workflow_type.name = workflow_type
        return event.event_id

    def external_signal_initiated(self, workflow_id: str, signal_name: str) -> int:
        event = self.add(EventType.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED)
        initiated = event.signal_external_workflow_execution_initiated_event_attributes
        initiated.workflow_execution.workflow_id = workflow_id
        initiated.signal_name = signal_name
        return event.event_id

    def external_cancel_initiated(self, workflow_id: str) -> int:
        event = self.add(EventType.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED)
        initiated = event.request_cancel_external_workflow_execution_initiated_event_attributes
        initiated.workflow_execution.workflow_id = workflow_id
        return event.event_id

    # Events of the world.

    def child_started(self, initiated_event_id: int, run_id: str = "child-run") -> int:
        event = self.add(EventType.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED)
        started = event.child_workflow_execution_started_event_attributes
        started.initiated_event_id = initiated_event_id
        started.workflow_execution.run_id = run_id
        return event.event_id

    def child_start_failed(self, initiated_event_id: int) -> int:
        event = self.add(EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED)
        failed = event.start_child_workflow_execution_failed_event_attributes
        failed.initiated_event_id = initiated_event_id
        failed.cause = (
            StartChildWorkflowFailedCause.START_CHILD_WORKFLOW_FAILED_CAUSE_WORKFLOW_ALREADY_EXISTS
        )
        return event.event_id

    def child_closed(self, initiated_event_id: int, how: str, result: object = None) -> int:
        """`how` is COMPLETED, FAILED, CANCELLED, TIMED_OUT or TERMINATED."""
        name = f"CHILD_WORKFLOW_EXECUTION_{how}"
        event = self.add(EventType.Value(f"EVENT_TYPE_{name}"))
        closed: Any = getattr(event, f"{name.lower()}_event_attributes")
        closed.initiated_event_id = initiated_event_id
        closed.workflow_execution.run_id = "child-run"
        if how == "COMPLETED":
            closed.result.payloads.append(self.converter.to_payload(result))
        elif how == "FAILED":
            closed.failure.message = "broken"
            closed.failure.application_failure_info.type = "Broken"
        return event.event_id

    def external_answered(self, initiated_event_id: int, name: str, cause: int = 0) -> int:
        """`name` is that of the event's type, without its prefix; a cause for one that failed."""
        event = self.add(EventType.Value(f"EVENT_TYPE_{name}"))
        answered: Any = getattr(event, f"{name.lower()}_event_attributes")
        answered.initiated_event_id = initiated_event_id
        if cause:
            answered.cause = cause
        return event.event_id

    def activity_started(self, scheduled_event_id: int) -> int:
        event = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED)
        started = event.activity_task_started_event_attributes
        started.scheduled_event_id = scheduled_event_id
        started.attempt = 1
        return event.event_id

    def activity_completed(self, scheduled_event_id: int, result: object = None) -> int:
        started_event_id = self.activity_started(scheduled_event_id)
        event = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED)
        completed = event.activity_task_completed_event_attributes
        completed.scheduled_event_id = scheduled_event_id
        completed.started_event_id = started_event_id
        completed.result.payloads.append(self.converter.to_payload(result))
        return event.event_id

    def activity_failed(self, scheduled_event_id: int, message: str = "broken") -> int:
        started_event_id = self.activity_started(scheduled_event_id)
        event = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_FAILED)
        failed = event.activity_task_failed_event_attributes
        failed.scheduled_event_id = scheduled_event_id
        failed.started_event_id = started_event_id
        failed.failure.message = message
        failed.failure.application_failure_info.type = "Broken"
        failed.retry_state = RetryState.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
        return event.event_id

    def activity_timed_out(
        self,
        scheduled_event_id: int,
        timeout_type: TimeoutType.ValueType = TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE,
    ) -> int:
        started_event_id = self.activity_started(scheduled_event_id)
        event = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT)
        timed_out = event.activity_task_timed_out_event_attributes
        timed_out.scheduled_event_id = scheduled_event_id
        timed_out.started_event_id = started_event_id
        timed_out.failure.CopyFrom(Failure(message="too late"))
        timed_out.failure.timeout_failure_info.timeout_type = timeout_type
        timed_out.retry_state = RetryState.RETRY_STATE_TIMEOUT
        return event.event_id

    def activity_cancelled(self, scheduled_event_id: int) -> int:
        event = self.add(EventType.EVENT_TYPE_ACTIVITY_TASK_CANCELLED)
        event.activity_task_cancelled_event_attributes.scheduled_event_id = scheduled_event_id
        return event.event_id

    def timer_fired(self, timer_id: str) -> int:
        event = self.add(EventType.EVENT_TYPE_TIMER_FIRED)
        event.timer_fired_event_attributes.timer_id = timer_id
        return event.event_id

    def signaled(self, signal_name: str, *arguments: object) -> int:
        event = self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED)
        signaled = event.workflow_execution_signaled_event_attributes
        signaled.signal_name = signal_name
        payloads = self.converter.to_payloads(arguments)
        if payloads is not None:
            signaled.input.CopyFrom(payloads)
        return event.event_id

    def cancel_requested(self) -> int:
        return self.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED).event_id
