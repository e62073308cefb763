"""Random lives of a run: whatever happens in whatever order, the log tells all of it."""

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from aetheris.api.v1 import command_pb2, history_pb2, task_queue_pb2, workflow_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_WORKFLOW
from aetheris.server.v1 import log_pb2
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import InvalidArgumentError, TaskNotFoundError, WorkflowClosedError
from aetheris_server.history.aggregates.records import EMPTY_HASH
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.deadlines import (
    decide_due,
    next_deadline,
    next_inflight_deadline,
)
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.activity import tasks as activity_tasks
from aetheris_server.history.state.machines.activity.answers import require_attempt
from aetheris_server.history.state.machines.activity.values import is_held, is_owed
from aetheris_server.history.state.machines.lifecycle.successor import (
    decide_continued,
    find_next_run_id,
)
from aetheris_server.history.state.machines.pause import RunPauses
from aetheris_server.history.state.machines.properties import memo_of, search_attributes_of
from aetheris_server.history.state.machines.workflow_task import tasks as workflow_tasks
from aetheris_server.history.state.obligations import obligations, owes
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.run_options import has_recorded, pinned_build_id
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.resets import NEW_KEY, carried_over, fold, make_records, started_events
from tests.support.run_strategies import CLOSINGS, COMMANDS, GOOD_COMMANDS
from tests.support.runs import (
    RunDriver,
    application_failure,
    cancel_activity,
    cancel_timer,
    record_marker,
    ref_ids,
    seconds,
)

LIMITS = RunLimits(
    history_max_events=400,
    max_pending_activities=5,
    max_pending_timers=4,
    max_signals=30,
    max_buffered_events=5,
    max_pending_children=3,
    max_pending_external_signals=2,
    max_pending_external_cancels=2,
    max_open_updates=3,
    max_updates=8,
)

STARTS = st.fixed_dictionaries(
    {
        "workflow_run_timeout": st.sampled_from([0, 0, 0, 0, 1000]).map(seconds),
        "workflow_execution_timeout": st.sampled_from([0, 0, 0, 1500]).map(seconds),
        "start_delay": st.sampled_from([0, 0, 0, 5]).map(seconds),
        "retry_policy": st.sampled_from(
            [None, None, {"maximum_attempts": 1}, {"maximum_attempts": 3}]
        ),
    }
)
"""How a run may be started."""

_CLOSE_EVENTS = {
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELLED,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW,
}

_ACTIVITY_ENDS = {
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_COMPLETED: "activity_task_completed_event_attributes",
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_FAILED: "activity_task_failed_event_attributes",
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT: "activity_task_timed_out_event_attributes",
    history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCELLED: "activity_task_cancelled_event_attributes",
}


def _fields(state: RunState) -> dict[str, object]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


class RunMachine(RuleBasedStateMachine):
    """One run, steered at random.

    Attributes:
        command_made: Events that the code's own commands lead to, so that it need not see them.
    """

    run: RunDriver
    command_made: ClassVar = frozenset(
        {
            history_pb2.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
            history_pb2.EVENT_TYPE_ACTIVITY_TASK_CANCEL_REQUESTED,
            history_pb2.EVENT_TYPE_TIMER_STARTED,
            history_pb2.EVENT_TYPE_TIMER_CANCELLED,
            history_pb2.EVENT_TYPE_MARKER_RECORDED,
            history_pb2.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES,
            history_pb2.EVENT_TYPE_WORKFLOW_PROPERTIES_MODIFIED,
        }
    )

    @initialize(options=STARTS)
    def start(self, options: dict[str, Any]) -> None:
        self._follow(self._begin(options))

    def _follow(self, run: RunDriver) -> None:
        self.run = run
        # What hosts have that read the log: from its start, and from snapshots of other moments.
        self.readers: list[RunState] = [run.fold()]
        # By start id, what the state was when a worker was given the workflow task.
        self.at_starts: dict[str, dict[str, object]] = {}

    def _begin(self, options: dict[str, Any]) -> RunDriver:
        return RunDriver(LIMITS, **options)

    def _is_open(self) -> bool:
        return self.run.state.is_open

    def _has_task(self) -> bool:
        owed = self.run.owed_tasks()
        return any(ref.task_queue_type == TASK_QUEUE_TYPE_WORKFLOW for ref in owed)

    def _worker_has_task(self) -> bool:
        return self.run.inflight.workflow_task is not None

    def _activity_ids(self) -> list[str]:
        return sorted(self.run.state.activity_ids)

    # The worker's workflow tasks.

    @precondition(_has_task)
    @rule()
    def start_task(self) -> None:
        self._start_task()

    def _start_task(self) -> None:
        started = self.run.start_task()
        self.at_starts[started.start_id] = carried_over(self.run.state)

    @rule(index=st.integers(0, 20))
    def begin_anew(self, index: int) -> None:
        starts = {
            event.workflow_task_started_event_attributes.request_id: event.event_id
            for event in started_events(self.run)
        }
        known = sorted(starts.keys() & self.at_starts.keys())
        if not known:
            return
        start_id = known[index % len(known)]
        try:
            records = make_records(self.run, starts[start_id])
        except InvalidArgumentError as refused:
            assert "another run, that was open" in str(refused)  # noqa: PT017
            return
        before = fold(records[:-1])
        assert carried_over(before) == self.at_starts[start_id]
        new = fold(records)
        assert new.is_open
        assert new.request_ids == self.run.state.request_ids
        assert new.cancel_requested == self.run.state.cancel_requested
        assert new.workflow_task is not None
        owed = obligations(new, Inflight(), new.start_time)
        assert {ref.scheduled_event_id for ref in owed if isinstance(ref, TaskRef)} == {
            new.workflow_task.scheduled_event_id,
            *new.activities,
        }
        assert {
            id_ for id_, open_ in before.activities.items() if not open_.is_at_most_once
        } <= new.activities.keys()
        assert _fields(from_snapshot(NEW_KEY, new.run_seq, new.hash, to_snapshot(new))) == _fields(
            new
        )

    @precondition(_worker_has_task)
    @rule(commands=COMMANDS)
    def complete_task_at_random(self, commands: list[command_pb2.Command]) -> None:
        before = len(self.run.history)
        decision = self.run.complete_task(*commands)
        if decision.refused is not None:
            assert self.run.inflight.workflow_task is None
            assert self.run.state.workflow_task is not None
            assert history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED not in {
                event.event_type for event in self.run.history[before:]
            }

    @precondition(lambda self: self._has_task() or self._worker_has_task())
    @rule(
        commands=GOOD_COMMANDS,
        activities=st.lists(st.integers(0, 20), max_size=2),
        timers=st.lists(st.integers(0, 20), max_size=1),
        force=st.booleans(),
    )
    def complete_task(
        self,
        commands: list[command_pb2.Command],
        activities: list[int],
        timers: list[int],
        force: bool,
    ) -> None:
        if not self._worker_has_task():
            self._start_task()
        state = self.run.state
        known = sorted(state.activities)
        chosen = [cancel_activity(known[i % len(known)]) for i in activities if known]
        known_timers = sorted(state.timers)
        chosen += [
            cancel_timer(known_timers[i % len(known_timers)]) for i in timers if known_timers
        ]
        taken: set[str] = set()
        for command in commands:
            id_ = (
                command.schedule_activity_task_command_attributes.activity_id
                or command.start_timer_command_attributes.timer_id
            )
            if id_ not in taken | state.activity_ids.keys() | state.timers.keys():
                chosen.append(command)
                taken.add(id_)
        self.run.complete_task(*chosen, force_create_new_workflow_task=force)

    @precondition(_worker_has_task)
    @rule(commands=COMMANDS, closing=CLOSINGS, chance=st.integers(0, 9))
    def close(
        self, commands: list[command_pb2.Command], closing: command_pb2.Command, chance: int
    ) -> None:
        if chance == 0:
            self.run.complete_task(*commands, closing, record_marker())

    @precondition(_worker_has_task)
    @rule()
    def fail_task(self) -> None:
        self.run.fail_task()

    @rule()
    def answer_of_stale_task(self) -> None:
        with pytest.raises(TaskNotFoundError):
            self.run.complete_task(start_id="stale")

    # The workers' activities.

    def _ready_ids(self) -> list[str]:
        return [
            activity.scheduled.activity_id
            for activity in self.run.state.activities.values()
            if is_owed(self.run.state, activity, self.run.inflight, self.run.now)
        ]

    def _has_started(self) -> bool:
        return bool(self.run.inflight.activities)

    @precondition(lambda self: bool(self._ready_ids()))
    @rule(index=st.integers(0, 5))
    def start_activity(self, index: int) -> None:
        ready = self._ready_ids()
        self.run.start_activity(ready[index % len(ready)])

    def _started_id(self, index: int) -> str | None:
        started = sorted(self.run.inflight.activities)
        if not started:
            return None
        return self.run.state.activities[started[index % len(started)]].scheduled.activity_id

    @precondition(_has_started)
    @rule(index=st.integers(0, 5))
    def lose_activity(self, index: int) -> None:
        if (activity_id := self._started_id(index)) is not None:
            self.run.lose_activity(activity_id)

    @precondition(_has_started)
    @rule(index=st.integers(0, 5))
    def complete_activity(self, index: int) -> None:
        if (activity_id := self._started_id(index)) is not None:
            self.run.complete_activity(activity_id)

    @precondition(lambda self: bool(self.run.state.activities))
    @rule(index=st.integers(0, 5), chance=st.integers(0, 4))
    def complete_activity_that_a_lost_host_gave_out(self, index: int, chance: int) -> None:
        open_ids = self._activity_ids()
        if open_ids and chance == 0:
            self.run.complete_activity(open_ids[index % len(open_ids)])

    @precondition(_has_started)
    @rule(index=st.integers(0, 5), non_retryable=st.booleans())
    def fail_activity(self, index: int, non_retryable: bool) -> None:
        if (activity_id := self._started_id(index)) is not None:
            failure = application_failure(non_retryable=non_retryable)
            self.run.fail_activity(activity_id, failure)

    @precondition(_has_started)
    @rule(index=st.integers(0, 5), details=st.sampled_from([None, "half"]))
    def heartbeat(self, index: int, details: str | None) -> None:
        if (activity_id := self._started_id(index)) is not None:
            self.run.heartbeat(activity_id, details)

    @precondition(_has_started)
    @rule(index=st.integers(0, 5))
    def cancel_activity(self, index: int) -> None:
        if (activity_id := self._started_id(index)) is None:
            return
        if self.run.activity(activity_id).cancel_requested_event_id:
            self.run.cancel_activity(activity_id)
        else:
            with pytest.raises(InvalidArgumentError):
                self.run.cancel_activity(activity_id)

    # What is done to activities from outside.

    def _open_id(self, index: int) -> str | None:
        open_ids = self._activity_ids()
        return open_ids[index % len(open_ids)] if open_ids else None

    @precondition(lambda self: bool(self.run.state.activities))
    @rule(index=st.integers(0, 5))
    def pause_activity(self, index: int) -> None:
        if (activity_id := self._open_id(index)) is not None:
            self.run.pause_activity(activity_id)

    @precondition(lambda self: bool(self.run.state.activities))
    @rule(index=st.integers(0, 5), delay=st.sampled_from([0, 5]), anew=st.booleans())
    def unpause_activity(self, index: int, delay: float, anew: bool) -> None:
        if (activity_id := self._open_id(index)) is not None:
            self.run.unpause_activity(activity_id, delay, reset_attempts=anew)

    @precondition(lambda self: bool(self.run.state.activities))
    @rule(index=st.integers(0, 5), delay=st.sampled_from([0, 5]), keep=st.booleans())
    def reset_activity(self, index: int, delay: float, keep: bool) -> None:
        if (activity_id := self._open_id(index)) is not None:
            self.run.reset_activity(activity_id, delay, keep_paused=keep, reset_heartbeat=keep)

    @precondition(lambda self: bool(self.run.state.activities))
    @rule(index=st.integers(0, 5), queue=st.sampled_from(["queue", "elsewhere"]))
    def move_activity(self, index: int, queue: str) -> None:
        if (activity_id := self._open_id(index)) is not None:
            options = workflow_pb2.ActivityOptions(task_queue=task_queue_pb2.TaskQueue(name=queue))
            self.run.update_activity(activity_id, options, "task_queue")

    # Clients.

    @rule(number=st.integers(0, 40))
    def signal(self, number: int) -> None:
        request_id = f"s{number}"
        known = request_id in self.run.state.request_ids
        if not self._is_open() and not known:
            with pytest.raises(WorkflowClosedError):
                self.run.signal(request_id)
        elif self.run.state.signal_count >= LIMITS.max_signals and not known:
            with pytest.raises(InvalidArgumentError):
                self.run.signal(request_id)
        else:
            assert (self.run.signal(request_id) is None) == known

    @rule(request_id=st.sampled_from(["c1", "c2", "s1"]))
    def request_cancel(self, request_id: str) -> None:
        state = self.run.state
        if state.cancel_requested and request_id == state.cancel_request_id:
            assert self.run.request_cancel(request_id) is None
        elif not self._is_open():
            with pytest.raises(WorkflowClosedError):
                self.run.request_cancel(request_id)
        else:
            known = state.cancel_requested
            assert (self.run.request_cancel(request_id) is None) == known

    @rule(number=st.integers(0, 200))
    def pause(self, number: int) -> None:
        self._pause_or_unpause(self.run.pause, number, must_be=False)

    @rule(number=st.integers(0, 200))
    def unpause(self, number: int) -> None:
        self._pause_or_unpause(self.run.unpause, number, must_be=True)

    def _pause_or_unpause(
        self,
        verb: Callable[[str], log_pb2.LogRecord | None],
        number: int,
        must_be: bool,
    ) -> None:
        pauses = self.run.state.parts.find(RunPauses)
        known = pauses is not None and str(number) in pauses.request_ids
        is_paused = self.run.state.is_paused
        if not self._is_open() and not known:
            with pytest.raises(WorkflowClosedError):
                verb(str(number))
        else:
            moves = (verb(str(number))) is not None
            assert moves == (is_paused == must_be and not known)

    @rule(
        build_id=st.sampled_from(["", "b1", "b2"]), request_id=st.sampled_from(["o1", "o2", "o3"])
    )
    def update_options(self, build_id: str, request_id: str) -> None:
        known = has_recorded(self.run.state, request_id)
        if not self._is_open() and not known:
            with pytest.raises(WorkflowClosedError):
                self.run.update_options(build_id, request_id)
            return
        changes = not known and build_id != pinned_build_id(self.run.state)
        assert (self.run.update_options(build_id, request_id) is not None) == changes
        assert known or pinned_build_id(self.run.state) == build_id

    @rule(chance=st.integers(0, 19))
    def terminate(self, chance: int) -> None:
        if not self._is_open():
            with pytest.raises(WorkflowClosedError):
                self.run.terminate()
        elif chance == 0:
            self.run.terminate()

    # Time and losses.

    @rule(wait=st.sampled_from([0, 0.1, 0.5, 1, 3, 10]))
    def advance(self, wait: float) -> None:
        self.run.advance(wait)
        assert self._decide_due() is None

    def _decide_due(self) -> log_pb2.LogRecord | None:
        return decide_due(self.run.state, self.run.inflight, self.run.now, self.run.at)

    @rule(step=st.sampled_from([-3600, -60, -3, -1, 1, 3, 60, 3600]))
    def step_clock(self, step: float) -> None:
        self.run.step_clock(step)
        self.run.fire()
        assert self._decide_due() is None

    @rule()
    def advance_to_next_deadline(self) -> None:
        waits: list[float] = []
        deadline = next_deadline(self.run.state, self.run.inflight, self.run.now)
        if deadline is not None:
            waits.append((deadline - self.run.now).total_seconds())
        at = next_inflight_deadline(self.run.state, self.run.inflight, self.run.at)
        if at is not None:
            waits.append(at - self.run.at)
        if waits:
            # Nothing is due before the deadline.
            assert self.run.advance(min(waits) / 2) is None
            # A rounding error of the float apart.
            self.run.advance(min(waits) / 2 + 2e-6)

    @rule(chance=st.integers(0, 2))
    def lose_host(self, chance: int) -> None:
        if chance == 0:
            self.run.lose_host()

    @rule()
    def read_from_snapshot(self) -> None:
        state = self.run.state
        reader = from_snapshot(self.run.key, state.run_seq, state.hash, to_snapshot(state))
        self.readers = [self.readers[0], *self.readers[1:][-1:], reader]

    # What must hold after each step.

    @invariant()
    def event_ids_are_contiguous(self) -> None:
        ids = [event.event_id for event in self.run.history]
        assert ids == list(range(1, len(ids) + 1))
        assert self.run.state.next_event_id == len(ids) + 1

    @invariant()
    def readers_of_the_log_have_the_state(self) -> None:
        for reader in self.readers:
            for stored in self.run.stored[reader.run_seq :]:
                apply(reader, log_pb2.LogRecord.FromString(stored), stored)
            assert _fields(reader) == _fields(self.run.state)

    @invariant()
    def hash_chain_verifies(self) -> None:
        link = EMPTY_HASH
        for stored in self.run.stored:
            link = hashlib.sha256(link + len(stored).to_bytes(8, "big") + stored).digest()
        assert link == self.run.state.hash
        assert self.run.state.history_bytes == sum(map(len, self.run.stored))
        assert self.run.state.run_seq == len(self.run.stored)

    @invariant()
    def everything_owed_was_offered(self) -> None:
        tasks, calls = self.run.owed_tasks(), self.run.owed_calls()
        assert ref_ids(tasks) <= ref_ids(self.run.refs)
        offered = {call.request_id: call for call in self.run.calls}
        assert all(offered[call.request_id] == call for call in calls)
        assert owes(self.run.state) or not (tasks or calls)
        assert self.run.state.is_open or owes(self.run.state) == bool(calls)

    @invariant()
    def nothing_of_a_paused_run_is_owed(self) -> None:
        state, inflight, now = self.run.state, self.run.inflight, self.run.now
        if state.is_paused:
            for tasks in (workflow_tasks, activity_tasks):
                assert not tasks.owes(state)
                assert not tasks.obligations(state, inflight, now)

    @invariant()
    def wake_time_covers_every_durable_deadline(self) -> None:
        upcoming = next_deadline(self.run.state, self.run.inflight, self.run.now)
        if upcoming is not None:
            assert upcoming > self.run.now
            assert self.run.wake_time is not None
            assert self.run.wake_time <= upcoming

    @invariant()
    def next_deadline_covers_all(self) -> None:
        state, inflight, now = self.run.state, self.run.inflight, self.run.now
        if not state.is_open:
            assert next_deadline(state, inflight, now) is None
            assert next_inflight_deadline(state, inflight, self.run.at) is None
            return
        if inflight.workflow_task is not None:
            at = next_inflight_deadline(state, inflight, self.run.at)
            assert at is not None
            assert at <= inflight.workflow_task.deadline_at
        moments: list[datetime] = [timer.fire_time for timer in state.timers.values()]
        moments += [
            activity.attempt_scheduled_time
            for scheduled_id, activity in state.activities.items()
            if scheduled_id in inflight.backing_off and not is_held(state, activity)
        ]
        if state.run_deadline_time is not None:
            moments.append(state.run_deadline_time)
        if state.first_task_time is not None:
            moments.append(state.first_task_time)
        soonest = next_deadline(state, inflight, now)
        assert not moments or (soonest is not None and now < soonest <= min(moments))

    @invariant()
    def close_event_is_one_and_last(self) -> None:
        closes = [event for event in self.run.history if event.event_type in _CLOSE_EVENTS]
        if self.run.state.is_open:
            assert not closes
            assert self.run.state.close_event is None
        else:
            assert closes == [self.run.history[-1]] == [self.run.state.close_event]

    @invariant()
    def activities_end_once(self) -> None:
        ends: set[int] = set()
        started: dict[int, int] = {}
        for event in self.run.history:
            if event.event_type == history_pb2.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                scheduled_id = event.activity_task_started_event_attributes.scheduled_event_id
                assert scheduled_id not in started
                started[scheduled_id] = event.event_id
            elif event.event_type in _ACTIVITY_ENDS:
                attributes = getattr(event, _ACTIVITY_ENDS[event.event_type])
                assert attributes.scheduled_event_id not in ends
                ends.add(attributes.scheduled_event_id)
                assert attributes.started_event_id == started.get(attributes.scheduled_event_id, 0)
        assert not ends & self.run.state.activities.keys()
        assert started.keys() <= ends

    @invariant()
    def tasks_in_flight_are_open(self) -> None:
        state, inflight = self.run.state, self.run.inflight
        assert inflight.activities.keys() <= state.activities.keys()
        for scheduled_id, started in inflight.activities.items():
            assert require_attempt(state, scheduled_id, started.attempt).attempt == started.attempt
        if inflight.workflow_task is not None:
            task = state.workflow_task
            assert (task is None) == inflight.workflow_task.is_speculative
            if task is not None:
                assert inflight.workflow_task.attempt == task.attempt
                assert inflight.workflow_task.scheduled_event_id == task.scheduled_event_id
        for activity in state.activities.values():
            assert (activity.started_time is None) == (
                not activity.is_at_most_once
                or activity.scheduled_event_id not in inflight.activities
            )

    @invariant()
    def transient_task_comes_next(self) -> None:
        task = self.run.state.workflow_task
        if task is not None and task.is_transient:
            assert task.scheduled_event_id == self.run.state.next_event_id

    @invariant()
    def events_wait_only_for_a_worker(self) -> None:
        if self.run.state.buffered_events:
            assert self.run.inflight.workflow_task is not None

    @invariant()
    def what_the_code_has_not_seen_has_a_task(self) -> None:
        state = self.run.state
        if not state.is_open or state.first_task_time is not None:
            return
        seen = state.last_completed_event_id
        ignored = self.command_made | Draft.not_for_code
        unseen = [e for e in self.run.history[seen:] if e.event_type not in ignored]
        assert not unseen or state.workflow_task is not None

    @invariant()
    def run_that_goes_on_begins_with_what_the_log_says(self) -> None:
        begun, closed = self.run.begun, self.run.state.close_event
        next_id = find_next_run_id(closed) if closed is not None else ""
        assert (begun is not None) == bool(next_id)
        if begun is None:
            return
        assert closed is not None
        assert begun[0].run_id == next_id
        assert decide_continued(self.run.fold(), closed) == begun
        started = self.run.successor()
        assert started.first_execution_run_id == self.run.state.started.first_execution_run_id
        assert memo_of(self.run.state) == started.memo
        assert search_attributes_of(self.run.state) == started.search_attributes

    @invariant()
    def at_most_once_attempts_that_may_have_come_start_once(self) -> None:
        out: set[tuple[int, int]] = set()
        for fact in (fact for record in self.run.records for fact in record.facts):
            if fact.HasField("activity_attempt_started"):
                started = fact.activity_attempt_started
                assert (started.scheduled_event_id, started.attempt) not in out
                out.add((started.scheduled_event_id, started.attempt))
            elif fact.HasField("activity_attempt_not_delivered"):
                lost = fact.activity_attempt_not_delivered
                out.remove((lost.scheduled_event_id, lost.attempt))

    @invariant()
    def recorded_signals_are_recorded_once(self) -> None:
        ids = [
            event.workflow_execution_signaled_event_attributes.request_id
            for event in [*self.run.history, *self.run.state.buffered_events]
            if event.event_type == history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
        ]
        assert len(ids) == len(set(ids)) == self.run.state.signal_count
        assert set(ids) == self.run.state.request_ids


RunMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=50,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
TestRunMachine = RunMachine.TestCase
