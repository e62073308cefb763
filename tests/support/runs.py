"""Drives one run through its core as a history host would, with a clock and a log of its own."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from google.protobuf import duration_pb2

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    failure_pb2,
    history_pb2,
    task_queue_pb2,
    worker_service_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris.server.v1 import log_pb2, matching_service_pb2, run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, AggregateName, CallOutcome
from aetheris_server.history.aggregates.obligation import Obligation
from aetheris_server.history.state.answered import decide_answered
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.command_pass import Decision
from aetheris_server.history.state.commands import decide_workflow_task_completed
from aetheris_server.history.state.deadlines import decide_due, new_deadline, next_deadline
from aetheris_server.history.state.inflight import Inflight, TaskTaker
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.activity import answers, changes
from aetheris_server.history.state.machines.activity import starting as activity_starting
from aetheris_server.history.state.machines.activity.values import ActivityState, StartedActivity
from aetheris_server.history.state.machines.cancellation import decide_cancel_requested
from aetheris_server.history.state.machines.child.endings import decide_child_closed
from aetheris_server.history.state.machines.lifecycle.close import decide_terminated
from aetheris_server.history.state.machines.lifecycle.start import Parent, decide_started, new_state
from aetheris_server.history.state.machines.lifecycle.successor import (
    decide_continued,
    find_next_run_id,
)
from aetheris_server.history.state.machines.options import decide_options_updated
from aetheris_server.history.state.machines.pause import decide_paused, decide_unpaused
from aetheris_server.history.state.machines.signal import decide_signaled
from aetheris_server.history.state.machines.update.admitting import (
    needs_speculative_task,
    speculative_task,
)
from aetheris_server.history.state.machines.workflow_task import ending
from aetheris_server.history.state.machines.workflow_task import starting as task_starting
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.state.obligations import (
    new_obligations,
    obligations,
    take_due_retries,
)
from aetheris_server.history.state.observe import observe, restore_inflight
from aetheris_server.history.state.run import KIND, RunKey, RunState
from aetheris_server.history.times import earliest, from_timestamp

KEY = RunKey("namespace", "workflow", "run")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
QUEUE = "queue"
CHILD_ID = "child-run"
PARENT = Parent(
    namespace_id="namespace",
    namespace="default",
    execution=common_pb2.WorkflowExecution(workflow_id="parent", run_id="parent-run"),
    initiated_event_id=5,
    root=common_pb2.WorkflowExecution(workflow_id="root", run_id="root-run"),
)
WORKER = TaskTaker("worker", worker_instance_id="worker-1", worker_version="build-1")

_EVENT = "EVENT_TYPE_"


def seconds(value: float) -> duration_pb2.Duration:
    """A duration."""
    duration = duration_pb2.Duration()
    duration.FromTimedelta(timedelta(seconds=value))
    return duration


def payloads(text: str) -> common_pb2.Payloads:
    """One value."""
    return common_pb2.Payloads(payloads=[common_pb2.Payload(data=text.encode())])


def application_failure(type_: str = "Oops", **info: Any) -> failure_pb2.Failure:
    """An error that user code raised."""
    return failure_pb2.Failure(
        message="oops",
        application_failure_info=failure_pb2.ApplicationFailureInfo(type=type_, **info),
    )


def schedule_activity(activity_id: str = "a", **attributes: Any) -> command_pb2.Command:
    """The command; start_to_close_timeout is 10 s where no timeout is given."""
    if not attributes.keys() & {"schedule_to_close_timeout", "start_to_close_timeout"}:
        attributes["start_to_close_timeout"] = seconds(10)
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
        schedule_activity_task_command_attributes=(
            command_pb2.ScheduleActivityTaskCommandAttributes(
                activity_id=activity_id,
                activity_type=common_pb2.ActivityType(name="Act"),
                **attributes,
            )
        ),
    )


def cancel_activity(scheduled_event_id: int) -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK,
        request_cancel_activity_task_command_attributes=(
            command_pb2.RequestCancelActivityTaskCommandAttributes(
                scheduled_event_id=scheduled_event_id
            )
        ),
    )


def start_timer(timer_id: str = "t", timeout: float = 60) -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_START_TIMER,
        start_timer_command_attributes=command_pb2.StartTimerCommandAttributes(
            timer_id=timer_id, start_to_fire_timeout=seconds(timeout)
        ),
    )


def cancel_timer(timer_id: str = "t") -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_CANCEL_TIMER,
        cancel_timer_command_attributes=command_pb2.CancelTimerCommandAttributes(timer_id=timer_id),
    )


def record_marker(name: str = "marker") -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_RECORD_MARKER,
        record_marker_command_attributes=command_pb2.RecordMarkerCommandAttributes(
            marker_name=name
        ),
    )


def start_child(workflow_id: str = "child", **attributes: Any) -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION,
        start_child_workflow_execution_command_attributes=(
            command_pb2.StartChildWorkflowExecutionCommandAttributes(
                workflow_id=workflow_id,
                workflow_type=common_pb2.WorkflowType(name="Child"),
                **attributes,
            )
        ),
    )


def signal_run(workflow_id: str = "other", **attributes: Any) -> command_pb2.Command:
    """The command that signals another run."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION,
        signal_external_workflow_execution_command_attributes=(
            command_pb2.SignalExternalWorkflowExecutionCommandAttributes(
                workflow_execution=common_pb2.WorkflowExecution(workflow_id=workflow_id),
                signal_name="hello",
                **attributes,
            )
        ),
    )


def cancel_run(workflow_id: str = "other", **attributes: Any) -> command_pb2.Command:
    """The command that asks another run to cancel."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION,
        request_cancel_external_workflow_execution_command_attributes=(
            command_pb2.RequestCancelExternalWorkflowExecutionCommandAttributes(
                workflow_execution=common_pb2.WorkflowExecution(workflow_id=workflow_id),
                **attributes,
            )
        ),
    )


def close_event(name: str = "COMPLETED", **attributes: Any) -> history_pb2.HistoryEvent:
    """The event that closes a child."""
    event = history_pb2.HistoryEvent(
        event_id=9, event_type=history_pb2.EventType.Value(f"{_EVENT}WORKFLOW_EXECUTION_{name}")
    )
    field: Any = getattr(event, f"workflow_execution_{name.lower()}_event_attributes")
    field.SetInParent()
    for key, value in attributes.items():
        getattr(field, key).CopyFrom(value)
    return event


def update(update_id: str = "u1", name: str = "set") -> history_pb2.UpdateRequest:
    """A request."""
    return history_pb2.UpdateRequest(
        update_id=update_id, identity="client", name=name, input=payloads(update_id)
    )


def accept_update(update_id: str = "u1") -> command_pb2.Command:
    """The command."""
    command = command_pb2.Command(command_type=command_pb2.COMMAND_TYPE_PROTOCOL_MESSAGE)
    command.protocol_message_command_attributes.message_id = update_id
    command.protocol_message_command_attributes.acceptance.SetInParent()
    return command


def complete_update(update_id: str = "u1", result: str = "done") -> command_pb2.Command:
    """The command."""
    command = command_pb2.Command(command_type=command_pb2.COMMAND_TYPE_PROTOCOL_MESSAGE)
    command.protocol_message_command_attributes.message_id = update_id
    command.protocol_message_command_attributes.outcome.success.CopyFrom(payloads(result))
    return command


def complete_workflow(result: str = "done") -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
        complete_workflow_execution_command_attributes=(
            command_pb2.CompleteWorkflowExecutionCommandAttributes(result=payloads(result))
        ),
    )


def fail_workflow(failure: failure_pb2.Failure | None = None) -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION,
        fail_workflow_execution_command_attributes=(
            command_pb2.FailWorkflowExecutionCommandAttributes(failure=failure)
        ),
    )


def cancel_workflow() -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION,
        cancel_workflow_execution_command_attributes=(
            command_pb2.CancelWorkflowExecutionCommandAttributes(details=payloads("bye"))
        ),
    )


def continue_as_new(**attributes: Any) -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION,
        continue_as_new_workflow_execution_command_attributes=(
            command_pb2.ContinueAsNewWorkflowExecutionCommandAttributes(**attributes)
        ),
    )


def memo(**values: str) -> common_pb2.Memo:
    """Values by name; an empty one is an empty payload."""
    return common_pb2.Memo(
        fields={name: common_pb2.Payload(data=text.encode()) for name, text in values.items()}
    )


def search_attributes(**values: str) -> common_pb2.SearchAttributes:
    """JSON by name; an empty one is an empty payload."""
    return common_pb2.SearchAttributes(
        indexed_fields={
            name: common_pb2.Payload(metadata={"type": b"Keyword"}, data=text.encode())
            for name, text in values.items()
        }
    )


def upsert_memo(**values: str) -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES,
        modify_workflow_properties_command_attributes=(
            command_pb2.ModifyWorkflowPropertiesCommandAttributes(upserted_memo=memo(**values))
        ),
    )


def upsert_search_attributes(**values: str) -> command_pb2.Command:
    """The command."""
    return command_pb2.Command(
        command_type=command_pb2.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
        upsert_workflow_search_attributes_command_attributes=(
            command_pb2.UpsertWorkflowSearchAttributesCommandAttributes(
                search_attributes=search_attributes(**values)
            )
        ),
    )


class RunDriver:
    """One run, its log, and what workers have of it.

    Attributes:
        records: The log, as objects; `stored` has the same as bytes.
        history: All events so far.
        begun: The next run and its first record, where the run has closed and one goes on.
        refs: Every task offered so far, by what its record or a timer brought.
        calls: The same for calls of other runs.
        wake_time: The executions row's: it changes when it must become earlier, or has fired.
        now: The wall clock; moves the other clock along, unless it is moved by `step_clock`.
    """

    def __init__(
        self,
        limits: RunLimits | None = None,
        *,
        key: RunKey = KEY,
        record: log_pb2.LogRecord | None = None,
        parent: Parent | None = None,
        **start: Any,
    ) -> None:
        """One that is started, as `start` says; or, given its first record, one that goes on."""
        self.limits = limits or RunLimits()
        self.key = key
        self.now = BEGIN if record is None else from_timestamp(record.time)
        self.inflight = Inflight()
        self.records: list[log_pb2.LogRecord] = []
        self.stored: list[bytes] = []
        self.history: list[history_pb2.HistoryEvent] = []
        self.refs: list[matching_service_pb2.TaskRef] = []
        self.calls: list[AggregateCall] = []
        self.wake_time: datetime | None = None
        self.starts = 0
        self.begun: tuple[RunKey, log_pb2.LogRecord] | None = None
        self._stepped = timedelta(0)
        request = workflow_service_pb2.StartWorkflowRequest(
            workflow_id=KEY.workflow_id,
            workflow_type=common_pb2.WorkflowType(name="Flow"),
            task_queue=task_queue_pb2.TaskQueue(name=QUEUE),
            request_id="start",
            **start,
        )
        if record is None:
            record = decide_started(key, request, self.now, parent=parent)
        self.state: RunState = new_state(key, record)
        self.commit(record)

    # The log.

    def commit(self, record: log_pb2.LogRecord) -> log_pb2.LogRecord:
        """Apply a record and keep its bytes."""
        stored = record.SerializeToString()
        apply(self.state, record, stored)
        observe(self.state, self.inflight, record)
        self.records.append(record)
        self.stored.append(stored)
        self.history.extend(record.events)
        self._offer(new_obligations(self.state, self.inflight, record, self.now))
        self.wake_time = earliest(self.wake_time, new_deadline(self.state, record))
        self._rewrite_wake_time()
        event = self.state.close_event
        if event is not None and find_next_run_id(event):
            self.begun = decide_continued(self.state, event)
        return record

    def successor(self) -> history_pb2.WorkflowExecutionStartedEventAttributes:
        """What the run that goes on is started with."""
        assert self.begun is not None
        return self.begun[1].events[0].workflow_execution_started_event_attributes

    def continued(self) -> Self:
        """The run that goes on, at its start."""
        assert self.begun is not None
        key, record = self.begun
        return type(self)(self.limits, key=key, record=record)

    def _offer(self, owed: Sequence[Obligation]) -> None:
        for each in owed:
            if isinstance(each, AggregateCall):
                self.calls.append(each)
            else:
                self.refs.append(each)

    def _rewrite_wake_time(self) -> None:
        if self.wake_time is not None and self.wake_time <= self.now:
            self.wake_time = next_deadline(self.state, self.inflight, self.now)

    def fold(self) -> RunState:
        """The state that a host gets from the log."""
        records = [log_pb2.LogRecord.FromString(stored) for stored in self.stored]
        state = new_state(self.key, records[0])
        for record, stored in zip(records, self.stored, strict=True):
            apply(state, record, stored)
        return state

    def names(self, last: int = 0) -> list[str]:
        """The types of the last events, or of all, without their prefix."""
        return [
            history_pb2.EventType.Name(event.event_type).removeprefix(_EVENT)
            for event in self.history[-last:]
        ]

    def last_event(self, name: str) -> history_pb2.HistoryEvent:
        """The newest event of a type, named without its prefix."""
        wanted = history_pb2.EventType.Value(_EVENT + name)
        return next(event for event in reversed(self.history) if event.event_type == wanted)

    # Time.

    @property
    def at(self) -> float:
        """The clock for intervals."""
        return (self.now - self._stepped - BEGIN).total_seconds()

    def step_clock(self, value: float) -> None:
        """Step the wall clock alone, forwards or backwards."""
        self.now += timedelta(seconds=value)
        self._stepped += timedelta(seconds=value)

    def advance(self, value: float) -> log_pb2.LogRecord | None:
        """Let time pass, and do what is due then."""
        self.now += timedelta(seconds=value)
        return self.fire()

    def fire(self) -> log_pb2.LogRecord | None:
        """Do what is due now."""
        record = decide_due(self.state, self.inflight, self.now, self.at)
        if record is not None:
            self.commit(record)
        self._offer(take_due_retries(self.state, self.inflight, self.now))
        self._rewrite_wake_time()
        return record

    def lose_host(self) -> None:
        """Another host takes the shard: what is only in memory is gone."""
        self.state = self.fold()
        self.inflight = Inflight()
        restore_inflight(self.state, self.inflight, self.now, self.at, taken_at=self.at)
        record = ending.decide_flush(self.state, self.inflight, self.now)
        if record is not None:
            self.commit(record)
        self.fire()
        # What the row does not cover, that host does not forget when the run leaves memory.
        deadline = next_deadline(self.state, self.inflight, self.now)
        self.wake_time = earliest(self.wake_time, deadline)

    # Workflow tasks.

    def start_task(
        self, taker: TaskTaker = WORKER, updates: Sequence[history_pb2.UpdateRequest] = ()
    ) -> StartedWorkflowTask:
        """Give the pending workflow task to a worker."""
        task = self.state.workflow_task
        assert task is not None
        assert task_starting.is_startable(
            self.state, self.inflight, task.scheduled_event_id, task.attempt, self.now
        )
        self.starts += 1
        start_id = f"start-{self.starts}"
        return task_starting.start_workflow_task(
            self.state,
            self.inflight,
            taker,
            start_id,
            self.now,
            self.at,
            self.limits,
            updates=tuple(updates),
        )

    def start_speculative_task(self, *updates: history_pb2.UpdateRequest) -> StartedWorkflowTask:
        """Give a worker a task that is there for updates alone."""
        assert needs_speculative_task(self.state, self.inflight)
        self.starts += 1
        return task_starting.start_workflow_task(
            self.state,
            self.inflight,
            WORKER,
            f"start-{self.starts}",
            self.now,
            self.at,
            self.limits,
            updates=updates,
            speculative=speculative_task(self.state, self.now),
        )

    def complete_task(
        self, *commands: command_pb2.Command, start_id: str = "", **request: Any
    ) -> Decision:
        """A worker decides."""
        started = self.inflight.workflow_task
        decision = decide_workflow_task_completed(
            self.state,
            self.inflight,
            worker_service_pb2.RespondWorkflowTaskCompletedRequest(
                commands=commands, identity=WORKER.identity, **request
            ),
            start_id or (started.start_id if started is not None else "none"),
            self.now,
            self.limits,
        )
        self.commit(decision.record)
        self.inflight.heartbeat_since = decision.heartbeat_since
        return decision

    def run_task(self, *commands: command_pb2.Command, **request: Any) -> Decision:
        """A worker takes the pending workflow task and decides at once."""
        self.start_task()
        return self.complete_task(*commands, **request)

    def fail_task(
        self,
        cause: history_pb2.WorkflowTaskFailedCause.ValueType = (
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
        ),
    ) -> log_pb2.LogRecord:
        """A worker could not decide."""
        started = self.inflight.workflow_task
        request = worker_service_pb2.RespondWorkflowTaskFailedRequest(
            cause=cause, failure=application_failure(), identity=WORKER.identity
        )
        start_id = started.start_id if started is not None else "none"
        return self.commit(
            ending.decide_workflow_task_failed(
                self.state, self.inflight, request, start_id, self.now
            )
        )

    def owed_tasks(self) -> list[matching_service_pb2.TaskRef]:
        """The tasks that are due and that nobody has."""
        owed = obligations(self.state, self.inflight, self.now)
        return [each for each in owed if isinstance(each, matching_service_pb2.TaskRef)]

    # Other runs.

    def owed_calls(self) -> list[AggregateCall]:
        """The calls that have not come to anything yet."""
        owed = obligations(self.state, self.inflight, self.now)
        return [each for each in owed if isinstance(each, AggregateCall)]

    def answer(
        self,
        call: AggregateCall,
        result: run_calls_pb2.RunCallResult.ValueType = run_calls_pb2.RUN_CALL_RESULT_DONE,
        run_id: str = "",
    ) -> log_pb2.LogRecord | None:
        """A call comes to something."""
        answer = run_calls_pb2.RunCallAnswer(result=result, run_id=run_id).SerializeToString()
        return self.take_outcome(call, CallOutcome(answer=answer))

    def take_outcome(self, call: AggregateCall, outcome: CallOutcome) -> log_pb2.LogRecord | None:
        """The same, by what the lanes bring."""
        record = decide_answered(self.state, self.inflight, call, outcome, self.now)
        return self.commit(record) if record is not None else None

    def hear_closed(
        self, initiated_event_id: int, close_event: history_pb2.HistoryEvent, run_id: str = CHILD_ID
    ) -> log_pb2.LogRecord | None:
        """A child calls, to say that it has closed."""
        record = decide_child_closed(
            self.state,
            self.inflight,
            AggregateName(kind=KIND, namespace_id="namespace", name="child", id=run_id),
            run_calls_pb2.ChildClosedCall(
                initiated_event_id=initiated_event_id,
                first_execution_run_id=run_id,
                workflow_type=common_pb2.WorkflowType(name="Child"),
                close_event=close_event,
            ),
            self.now,
        )
        return self.commit(record) if record is not None else None

    # Activities.

    def activity(self, activity_id: str = "a") -> ActivityState:
        """An open activity."""
        return self.state.activities[self.state.activity_ids[activity_id]]

    def start_activity(self, activity_id: str = "a", taker: TaskTaker = WORKER) -> StartedActivity:
        """Give an activity's current attempt to a worker."""
        activity = self.activity(activity_id)
        assert activity_starting.is_startable(
            self.state, self.inflight, activity.scheduled_event_id, activity.attempt, self.now
        )
        if activity.is_at_most_once:
            self.commit(
                activity_starting.decide_attempt_started(
                    self.state, self.inflight, activity, taker, self.now
                )
            )
        return activity_starting.start_activity(activity, self.inflight, taker, self.now, self.at)

    def lose_activity(self, activity_id: str = "a") -> None:
        """A worker certainly did not get what it was given."""
        activity = self.activity(activity_id)
        if not activity.is_at_most_once:
            del self.inflight.activities[activity.scheduled_event_id]
            # Its time to be started counts again, and may be over.
            self.fire()
            return
        self.commit(
            activity_starting.decide_not_delivered(self.state, self.inflight, activity, self.now)
        )

    def complete_activity(self, activity_id: str = "a", result: str = "42") -> log_pb2.LogRecord:
        """A worker gives a result."""
        activity = self.activity(activity_id)
        request = worker_service_pb2.RespondActivityTaskCompletedRequest(
            result=payloads(result), identity=WORKER.identity
        )
        return self.commit(
            answers.decide_activity_task_completed(
                self.state, self.inflight, activity, request, self._started_time(activity), self.now
            )
        )

    def fail_activity(
        self,
        activity_id: str = "a",
        failure: failure_pb2.Failure | None = None,
        details: common_pb2.Payloads | None = None,
    ) -> log_pb2.LogRecord:
        """A worker fails."""
        activity = self.activity(activity_id)
        request = worker_service_pb2.RespondActivityTaskFailedRequest(
            failure=failure or application_failure(),
            identity=WORKER.identity,
            last_heartbeat_details=details,
        )
        return self.commit(
            answers.decide_activity_task_failed(
                self.state, self.inflight, activity, request, self._started_time(activity), self.now
            )
        )

    def cancel_activity(self, activity_id: str = "a") -> log_pb2.LogRecord:
        """A worker did as the request to cancel asked."""
        activity = self.activity(activity_id)
        request = worker_service_pb2.RespondActivityTaskCancelledRequest(
            details=payloads("stopped"), identity=WORKER.identity
        )
        return self.commit(
            answers.decide_activity_task_cancelled(
                self.state, self.inflight, activity, request, self._started_time(activity), self.now
            )
        )

    def heartbeat(self, activity_id: str = "a", details: str | None = None) -> None:
        """A worker says that it is alive."""
        activity = self.activity(activity_id)
        started = self.inflight.activities.get(activity.scheduled_event_id)
        if started is not None:
            started.note_heartbeat(self.now, self.at)
        record = answers.decide_heartbeat(
            self.state,
            self.inflight,
            activity,
            payloads(details) if details is not None else None,
            self.now,
        )
        if record is not None:
            self.commit(record)

    def _started_time(self, activity: ActivityState) -> datetime:
        started = self.inflight.activities.get(activity.scheduled_event_id)
        return started.started_time if started is not None else self.now

    # Clients.

    def signal(self, request_id: str = "s1", **request: Any) -> log_pb2.LogRecord | None:
        """A client signals; None if it had before."""
        record = decide_signaled(
            self.state,
            self.inflight,
            workflow_service_pb2.SignalWorkflowRequest(
                signal_name="go", request_id=request_id, **request
            ),
            self.now,
            self.limits,
        )
        return self.commit(record) if record is not None else None

    def request_cancel(self, request_id: str = "c1") -> log_pb2.LogRecord | None:
        """A client asks the run to cancel; None if it need not."""
        record = decide_cancel_requested(
            self.state,
            self.inflight,
            workflow_service_pb2.CancelWorkflowRequest(request_id=request_id, reason="enough"),
            self.now,
        )
        return self.commit(record) if record is not None else None

    def pause(self, request_id: str = "p1", reason: str = "wait") -> log_pb2.LogRecord | None:
        """A client holds the run; None if it need not."""
        record = decide_paused(
            self.state,
            self.inflight,
            workflow_service_pb2.PauseWorkflowRequest(
                request_id=request_id, reason=reason, identity="operator"
            ),
            self.now,
        )
        return self.commit(record) if record is not None else None

    def unpause(self, request_id: str = "u1") -> log_pb2.LogRecord | None:
        """A client has the run go on; None if it does."""
        record = decide_unpaused(
            self.state,
            self.inflight,
            workflow_service_pb2.UnpauseWorkflowRequest(
                request_id=request_id, reason="go on", identity="operator"
            ),
            self.now,
        )
        return self.commit(record) if record is not None else None

    def pause_activity(
        self, activity_id: str = "a", request_id: str = "", reason: str = "wait"
    ) -> log_pb2.LogRecord | None:
        """A client holds an activity; None if it need not."""
        activity = changes.require_activity(self.state, activity_id)
        request = workflow_service_pb2.PauseActivityRequest(
            request_id=request_id or str(self.state.run_seq), reason=reason, identity="operator"
        )
        return self._commit_change(
            changes.decide_activity_paused(self.state, self.inflight, activity, request, self.now)
        )

    def unpause_activity(
        self, activity_id: str = "a", delay: float = 0, **request: Any
    ) -> log_pb2.LogRecord | None:
        """A client has an activity go on; None if it does."""
        activity = changes.require_activity(self.state, activity_id)
        request.setdefault("request_id", str(self.state.run_seq))
        return self._commit_change(
            changes.decide_activity_unpaused(
                self.state,
                self.inflight,
                activity,
                workflow_service_pb2.UnpauseActivityRequest(**request),
                timedelta(seconds=delay),
                self.now,
            )
        )

    def reset_activity(
        self, activity_id: str = "a", delay: float = 0, **request: Any
    ) -> log_pb2.LogRecord | None:
        """A client has an activity begin anew; None if this request has."""
        activity = changes.require_activity(self.state, activity_id)
        request.setdefault("request_id", str(self.state.run_seq))
        return self._commit_change(
            changes.decide_activity_reset(
                self.state,
                self.inflight,
                activity,
                workflow_service_pb2.ResetActivityRequest(**request),
                timedelta(seconds=delay),
                self.now,
            )
        )

    def update_activity(
        self,
        activity_id: str = "a",
        options: workflow_pb2.ActivityOptions | None = None,
        *paths: str,
    ) -> log_pb2.LogRecord | None:
        """A client changes the options that the paths name."""
        activity = changes.require_activity(self.state, activity_id)
        request = workflow_service_pb2.UpdateActivityOptionsRequest(
            request_id=str(self.state.run_seq), activity_options=options
        )
        request.update_mask.paths.extend(paths)
        return self._commit_change(
            changes.decide_options_updated(self.state, self.inflight, activity, request, self.now)
        )

    def _commit_change(self, record: log_pb2.LogRecord | None) -> log_pb2.LogRecord | None:
        return self.commit(record) if record is not None else None

    def update_options(self, build_id: str, request_id: str = "o1") -> log_pb2.LogRecord | None:
        """A client pins the run to a build, or to none; None if it need not."""
        record = decide_options_updated(
            self.state,
            self.inflight,
            workflow_service_pb2.UpdateWorkflowOptionsRequest(
                pinned_build_id=build_id, request_id=request_id, reason="a mistake in it"
            ),
            self.now,
        )
        return self.commit(record) if record is not None else None

    def terminate(self) -> log_pb2.LogRecord:
        """A client closes the run, by a request of its own."""
        request_id = str(self.state.run_seq)
        record = decide_terminated(
            self.state, self.inflight, "stop", payloads("why"), "client", request_id, self.now
        )
        assert record is not None
        return self.commit(record)


def ref_ids(refs: Sequence[matching_service_pb2.TaskRef]) -> set[tuple[int, int, int]]:
    """What tells tasks of one run apart."""
    return {(ref.task_queue_type, ref.scheduled_event_id, ref.attempt) for ref in refs}
