"""The records of the new run, made of its base's.

The events of the base are taken as they are, under their ids and with their times. Only the first
says who asked for this run, counts its timeouts from now on, and, of a fork, names another workflow
and no parent.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from aetheris.api.v1 import failure_pb2, history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, reset_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.aggregates.records import ATTRIBUTES
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines import reset
from aetheris_server.history.state.machines.activity.values import ActivityState
from aetheris_server.history.state.machines.child.values import Children
from aetheris_server.history.state.machines.external.owed import Owed
from aetheris_server.history.state.reset.later import Begun, LaterEvents
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.history.times import from_duration, to_timestamp

MAX_PREFIX_BYTES = 64 * 1024 * 1024
"""What a new run takes of its base at most: all of it is written in one transaction."""

# A page of a history reads a few records, and folding one holds up all else: they are not larger
# than those of other runs.
_RECORD_BYTES = 256 * 1024
_RECORD_EVENTS = 1_000

_CHILD_STARTED = history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED

Fold = Callable[[log_pb2.LogRecord], RunState]
"""Takes the next record of the new run into its state, which it returns."""


@dataclass(frozen=True, slots=True)
class NewRun:
    """Which run is made, from where, and who asked.

    Attributes:
        key: With a new run id.
        base: The run that it is taken from.
        started_event_id: Of the workflow task that it decides anew: the last event of both.
        excluded: What of the later events does not come again.
    """

    key: RunKey
    base: RunKey
    started_event_id: int
    excluded: Collection["workflow_service_pb2.ReapplyExclude.ValueType"]
    reason: str
    identity: str
    request_id: str

    @property
    def is_fork(self) -> bool:
        """Whether it has a workflow id of its own."""
        return self.key.workflow_id != self.base.workflow_id


class NewRunBuilder:
    """Makes the records while those of the base, and of the runs that follow it, are read.

    Attributes:
        start_time: Its own.
        later: What of the events behind the point comes again.
    """

    def __init__(self, run: NewRun, start_time: datetime, fold: Fold) -> None:
        """Args:
        run: To be made.
        start_time: Its own, later than that of any run of its workflow id.
        fold: Given each of its records in order, but for the last.
        """
        self.run = run
        self.later = LaterEvents(run.excluded)
        self.start_time = start_time
        self._fold = fold
        self._record = self._new_record()
        self._record_bytes = 0
        self._byte_count = 0
        self._state: RunState | None = None

    def take(self, record: log_pb2.LogRecord) -> None:
        """Take the base's next record, from its first on.

        Raises:
            InvalidArgumentError: There is more than a new run can take.
        """
        point = self.run.started_event_id
        until = next((i for i, e in enumerate(record.events) if e.event_id > point), None)
        before = record.events[:until]
        if before:
            self._take_prefix(before)
        self.later.take(record, record.events[len(before) :], of_base=True)

    def finish(self, now: datetime) -> log_pb2.LogRecord:
        """Its last record, with what is its own; the base has been taken whole.

        Args:
            now: Its time, not before its start.

        Raises:
            InvalidArgumentError: The base waited for another run at the point, and never learnt
                what came of it.
        """
        self._seal()
        state = self._state
        assert state is not None
        draft = Draft(state, Inflight(), now)
        self._append_reset(draft, state)
        self._reapply(draft, state)
        for activity in state.activities.values():
            begun = self.later.begun.get(activity.scheduled_event_id)
            if activity.is_at_most_once and begun is not None:
                _append_outcome(draft, activity, begun)
        self._append_answers(draft, state)
        draft.schedule_workflow_task()
        taken_from = reset_pb2.TakenFrom(
            workflow_id=self.run.base.workflow_id,
            run_id=self.run.base.run_id,
            started_event_id=self.run.started_event_id,
        )
        reset.append_taken_from(draft, taken_from)
        return draft.record

    # The events of the base.

    def _take_prefix(self, events: Iterable[history_pb2.HistoryEvent]) -> None:
        for event in events:
            size = event.ByteSize()
            self._byte_count += size
            if self._byte_count > MAX_PREFIX_BYTES:
                raise InvalidArgumentError(
                    "point",
                    f"the history up to event {self.run.started_event_id} takes more than"
                    f" {MAX_PREFIX_BYTES} bytes, the most that a new run takes over",
                )
            is_full = len(self._record.events) == _RECORD_EVENTS
            if is_full or self._record_bytes + size > _RECORD_BYTES:
                self._seal()
            self._record_bytes += size
            self._record.events.append(event)
            if event.event_id == 1:
                self._rewrite_started(self._record.events[0])

    def _rewrite_started(self, event: history_pb2.HistoryEvent) -> None:
        started = event.workflow_execution_started_event_attributes
        started.request_id = self.run.request_id
        # What it was to wait for has been waited for.
        started.ClearField("first_workflow_task_backoff")
        execution_timeout = from_duration(started.workflow_execution_timeout)
        if execution_timeout:
            started.workflow_execution_expiration_time.CopyFrom(
                to_timestamp(self.start_time + execution_timeout)
            )
        if not self.run.is_fork:
            return
        started.workflow_id = self.run.key.workflow_id
        started.first_execution_run_id = self.run.key.run_id
        for name in (
            "parent_namespace",
            "parent_workflow_execution",
            "parent_initiated_event_id",
            "root_workflow_execution",
        ):
            started.ClearField(name)

    def _seal(self) -> None:
        """The record is full: the next begins."""
        if self._record.events:
            self._state = self._fold(self._record)
            self._record = self._new_record()
            self._record_bytes = 0

    def _new_record(self) -> log_pb2.LogRecord:
        return log_pb2.LogRecord(time=to_timestamp(self.start_time))

    # Its own.

    def _append_reset(self, draft: Draft, state: RunState) -> None:
        what = "forked" if self.run.is_fork else "reset"
        reason = f": {self.run.reason}" if self.run.reason else ""
        task = state.workflow_task
        draft.add(
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED,
            history_pb2.WorkflowTaskFailedEventAttributes(
                scheduled_event_id=task.scheduled_event_id if task is not None else 0,
                started_event_id=self.run.started_event_id,
                cause=history_pb2.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
                failure=failure_pb2.Failure(message=f"the run was {what}{reason}"),
                identity=self.run.identity,
                base_run_id=self.run.base.run_id,
                new_run_id=self.run.key.run_id,
                base_workflow_id=self.run.base.workflow_id,
            ),
        )

    def _reapply(self, draft: Draft, state: RunState) -> None:
        known = set(state.request_ids)
        is_cancelled = state.cancel_requested
        for event in self.later.events:
            attributes = getattr(event, ATTRIBUTES[event.event_type])
            if event.event_type == history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
                if attributes.request_id in known:
                    continue
                known.add(attributes.request_id)
            elif is_cancelled:
                continue
            else:
                is_cancelled = True
            draft.add(event.event_type, attributes)

    def _append_answers(self, draft: Draft, state: RunState) -> None:
        """What came, behind the point, of what had been asked of other runs before it."""
        for initiated_id in _find_asked(state):
            answers = self.later.others.get(initiated_id, {})
            started = answers.pop(_CHILD_STARTED, None)
            if len(answers) != 1:
                # Whoever would tell the base does not know of the new run.
                raise InvalidArgumentError(
                    "point",
                    f"event {initiated_id} is of a child, or a call to another run, that was open"
                    " there, and the run never learnt how it ended; not served by this version",
                )
            started_id = _append_answer(draft, started, 0) if started is not None else 0
            for answer in answers.values():
                _append_answer(draft, answer, started_id)


def _find_asked(state: RunState) -> list[int]:
    """The events that asked other runs for what is open still."""
    parts = [part for part in state.parts.values() if isinstance(part, (Children, Owed))]
    return sorted(event_id for part in parts for event_id in part)


def _append_answer(draft: Draft, answer: history_pb2.HistoryEvent, started_id: int) -> int:
    """The event's id. `started_id` is that of the child's start, if it comes again, too."""
    copy = history_pb2.HistoryEvent()
    copy.CopyFrom(answer)
    attributes = getattr(copy, ATTRIBUTES[copy.event_type])
    if started_id:
        attributes.started_event_id = started_id
    return draft.add(copy.event_type, attributes)


def _append_outcome(draft: Draft, activity: ActivityState, begun: Begun) -> None:
    """Close an at-most-once activity that the base had begun."""
    started_id = draft.add(
        history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED,
        history_pb2.ActivityTaskStartedEventAttributes(
            scheduled_event_id=activity.scheduled_event_id,
            identity=begun.identity,
            attempt=begun.attempt,
            started_time=to_timestamp(begun.started_time),
        ),
    )
    if begun.outcome is None:
        draft.add(
            history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT,
            history_pb2.ActivityTaskTimedOutEventAttributes(
                failure=failure_pb2.Failure(
                    message="the activity was begun by the run that this one is taken from",
                    source="server",
                    timeout_failure_info=failure_pb2.TimeoutFailureInfo(
                        timeout_type=failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE, outcome_unknown=True
                    ),
                ),
                scheduled_event_id=activity.scheduled_event_id,
                started_event_id=started_id,
                retry_state=failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE,
            ),
        )
        return
    outcome = history_pb2.HistoryEvent()
    outcome.CopyFrom(begun.outcome)
    attributes = getattr(outcome, ATTRIBUTES[outcome.event_type])
    attributes.started_event_id = started_id
    draft.add(outcome.event_type, attributes)
