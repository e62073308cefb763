"""A run that is driven beside its model, and that remembers what each record left it owing."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from aetheris.api.v1 import command_pb2, common_pb2, failure_pb2, history_pb2
from aetheris.server.v1 import log_pb2, run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome
from aetheris_server.history.aggregates.obligation import number_of
from aetheris_server.history.state.command_pass import Decision
from aetheris_server.history.state.inflight import Inflight, TaskTaker
from aetheris_server.history.state.machines.update.admitting import (
    check_admittable,
    needs_speculative_task,
)
from aetheris_server.history.state.machines.workflow_task import ending
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.state.obligations import obligations
from aetheris_server.history.state.observe import restore_inflight
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.snapshot import to_snapshot
from tests.support.run_model import RunModel
from tests.support.runs import CHILD_ID, WORKER, RunDriver, update

_STARTED = "activity_task_started_event_attributes"
_TIMED_OUT = "activity_task_timed_out_event_attributes"


class Moment(NamedTuple):
    """What the log came to after a record.

    Attributes:
        owed: What a host owes that takes the run over then.
    """

    snapshot: bytes
    owed: list[bytes]
    now: datetime
    at: float


def owed_after_loss(state: RunState, now: datetime, at: float) -> list[bytes]:
    """What a host owes that has just taken the run over."""
    inflight = Inflight()
    restore_inflight(state, inflight, now, at, taken_at=at)
    return [
        owed.SerializeToString(deterministic=True) for owed in obligations(state, inflight, now)
    ]


class ModelledRun(RunDriver):
    """One run; whatever is done to it is done to its model.

    Attributes:
        moments: One for each record.
        admitted: The updates that wait to be judged, in order.
        taken: The commands that were not refused, by type.
        answered: The calls that came to something, by what they ask.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.moments: list[Moment] = []
        self.admitted: list[str] = []
        self.taken: set[int] = set()
        self.answered: set[str] = set()
        super().__init__(*args, **kwargs)
        started = self.state.started
        self.model = RunModel(
            self.limits,
            now=self.now,
            delay=started.first_workflow_task_backoff.ToTimedelta(),
            has_parent=started.HasField("parent_workflow_execution"),
            build_id=started.pinned_build_id,
        )

    def commit(self, record: log_pb2.LogRecord) -> log_pb2.LogRecord:
        super().commit(record)
        owed = owed_after_loss(self.state, self.now, self.at)
        self.moments.append(Moment(to_snapshot(self.state), owed, self.now, self.at))
        return record

    # Time and losses.

    def fire(self) -> log_pb2.LogRecord | None:
        record = super().fire()
        events = _events_of(record) if record is not None else []
        started: set[int] = set()
        timed_out: list[tuple[int, bool]] = []
        for event in events:
            if event.HasField(_STARTED):
                started.add(event.activity_task_started_event_attributes.scheduled_event_id)
            elif event.HasField(_TIMED_OUT):
                event_id = event.activity_task_timed_out_event_attributes.scheduled_event_id
                # One that only gets its number timed out before.
                if event_id in self.model.activities:
                    timed_out.append((event_id, event_id in started))
        closing = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT
        self.model.pass_time(
            self.now,
            self.at,
            is_over=any(event.event_type == closing for event in events),
            goes_on=self.begun is not None,
            timed_out=timed_out,
        )
        return record

    def lose_host(self) -> None:
        self.admitted.clear()
        self.model.lose_host()
        super().lose_host()

    # Workflow tasks.

    def start_task(
        self, taker: TaskTaker = WORKER, updates: Sequence[history_pb2.UpdateRequest] = ()
    ) -> StartedWorkflowTask:
        started = super().start_task(taker, updates or [update(each) for each in self.admitted])
        self.model.start_task(self.now, self.at, self.admitted)
        return started

    def start_for_updates(self) -> bool:
        """Have a worker take a task for the updates that wait, if they need one of their own."""
        if not self.admitted or not needs_speculative_task(self.state, self.inflight):
            return False
        super().start_speculative_task(*(update(each) for each in self.admitted))
        self.model.start_task(self.now, self.at, self.admitted)
        return True

    def complete_task(
        self, *commands: command_pb2.Command, start_id: str = "", **request: Any
    ) -> Decision:
        in_flight = frozenset(self.inflight.activities)
        started = self.inflight.workflow_task
        decision = super().complete_task(*commands, start_id=start_id, **request)
        is_taken = self.model.complete_task(
            commands,
            self.now,
            force=request.get("force_create_new_workflow_task", False),
            in_flight=in_flight,
            goes_on=self.begun is not None,
        )
        assert is_taken == (decision.refused is None)
        if is_taken and not decision.is_overdue:
            assert started is not None
            self.taken.update(command.command_type for command in commands)
            self._forget(started)
        return decision

    def discard_task(self) -> None:
        """A worker rejects all updates of the speculative task that it has."""
        started = self.inflight.workflow_task
        assert started is not None
        assert started.is_speculative
        self.inflight.workflow_task = None
        record = ending.decide_flush(self.state, self.inflight, self.now)
        if record is not None:
            self.commit(record)
        self.model.discard_task()
        self._forget(started)

    def _forget(self, judged: StartedWorkflowTask) -> None:
        sent = {each.update_id for each in judged.updates}
        self.admitted = [each for each in self.admitted if each not in sent and self.state.is_open]

    def fail_task(
        self,
        cause: history_pb2.WorkflowTaskFailedCause.ValueType = (
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
        ),
    ) -> log_pb2.LogRecord:
        record = super().fail_task(cause)
        self.model.fail_task()
        return record

    # Answers for activities.

    def complete_activity(self, activity_id: str = "a", result: str = "42") -> log_pb2.LogRecord:
        event_id = self.activity(activity_id).scheduled_event_id
        record = super().complete_activity(activity_id, result)
        self.model.end_activity(event_id, "COMPLETED")
        return record

    def fail_activity(
        self,
        activity_id: str = "a",
        failure: failure_pb2.Failure | None = None,
        details: common_pb2.Payloads | None = None,
    ) -> log_pb2.LogRecord:
        event_id = self.activity(activity_id).scheduled_event_id
        record = super().fail_activity(activity_id, failure, details)
        if event_id not in self.state.activities:
            self.model.end_activity(event_id, "FAILED")
        return record

    def cancel_activity(self, activity_id: str = "a") -> log_pb2.LogRecord:
        event_id = self.activity(activity_id).scheduled_event_id
        record = super().cancel_activity(activity_id)
        assert self.model.activities[event_id].cancel_requested
        self.model.end_activity(event_id, "CANCELLED")
        return record

    # Other runs.

    def take_outcome(self, call: AggregateCall, outcome: CallOutcome) -> log_pb2.LogRecord | None:
        asked = run_calls_pb2.RunCall.FromString(call.payload).WhichOneof("call")
        answer = run_calls_pb2.RunCallAnswer.FromString(outcome.answer)
        is_done = answer.result == run_calls_pb2.RUN_CALL_RESULT_DONE
        record = super().take_outcome(call, outcome)
        assert asked is not None
        if record is not None:
            self.answered.add(asked)
        match asked:
            case "start_child":
                self.model.answer_start(number_of(call), is_done)
            case "close_child":
                self.model.answer_close(number_of(call))
            case "signal":
                self.model.answer_external("signal", number_of(call), is_done)
            case "request_cancel":
                self.model.answer_external("cancel", number_of(call), is_done)
            case _:
                self.model.tells_parent = False
        return record

    def hear_closed(
        self, initiated_event_id: int, close_event: history_pb2.HistoryEvent, run_id: str = CHILD_ID
    ) -> log_pb2.LogRecord | None:
        record = super().hear_closed(initiated_event_id, close_event, run_id)
        name = history_pb2.EventType.Name(close_event.event_type).rpartition("EXECUTION_")[2]
        self.model.hear_closed(initiated_event_id, name)
        return record

    # Clients.

    def admit(self, update_id: str) -> None:
        """A client asks for an update; refused as the core does."""
        check_admittable(self.state, self.admitted, self.limits)
        self.admitted.append(update_id)

    def signal(self, request_id: str = "s1", **request: Any) -> log_pb2.LogRecord | None:
        record = super().signal(request_id, **request)
        self.model.signal(request_id)
        return record

    def request_cancel(self, request_id: str = "c1") -> log_pb2.LogRecord | None:
        record = super().request_cancel(request_id)
        self.model.request_cancel()
        return record

    def pause(self, request_id: str = "p1", reason: str = "wait") -> log_pb2.LogRecord | None:
        record = super().pause(request_id, reason)
        self.model.pause(request_id, is_paused=True)
        return record

    def unpause(self, request_id: str = "u1") -> log_pb2.LogRecord | None:
        record = super().unpause(request_id)
        self.model.pause(request_id, is_paused=False)
        return record

    def update_options(self, build_id: str, request_id: str = "o1") -> log_pb2.LogRecord | None:
        record = super().update_options(build_id, request_id)
        self.model.update_options(request_id, build_id)
        return record

    def terminate(self) -> log_pb2.LogRecord:
        record = super().terminate()
        self.model.terminate()
        return record


def _events_of(record: log_pb2.LogRecord) -> list[history_pb2.HistoryEvent]:
    """Those of a record, and those that it buffers."""
    buffered = [fact.event_buffered for fact in record.facts if fact.HasField("event_buffered")]
    return [*record.events, *buffered]
