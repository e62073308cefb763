"""Random lives of a run in which everything takes part, beside a model of it: chains of runs with
all commands, requests, answers, updates, losses and time, cut anywhere and read again.
"""

from collections import Counter
from typing import Any, ClassVar, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aetheris.api.v1 import command_pb2, history_pb2, workflow_pb2
from aetheris.server.v1 import log_pb2
from aetheris.server.v1.run_calls_pb2 import RUN_CALL_RESULT_DONE, RUN_CALL_RESULT_NOT_FOUND
from aetheris_server.errors import UpdateLimitError, WorkflowClosedError, WorkflowNotReadyError
from aetheris_server.history.aggregates.obligation import number_of
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.machines.child.values import children_of
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.machines.update.values import Updates, find_update
from aetheris_server.history.state.obligations import owes
from aetheris_server.history.state.registry import RUN_MACHINES, fact_name
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.modelled_run import ModelledRun, owed_after_loss
from tests.support.run_strategies import GOOD_COMMANDS
from tests.support.runs import (
    CHILD_ID,
    PARENT,
    accept_update,
    application_failure,
    cancel_activity,
    cancel_run,
    cancel_workflow,
    close_event,
    complete_update,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    schedule_activity,
    seconds,
    signal_run,
    start_child,
)
from tests.unit.history.machines.test_run_calls import CALLS, CallingMachine
from tests.unit.history.test_run_machine import LIMITS, STARTS, RunMachine

_MIN_STEPS = 10_000
_JUDGEMENTS = st.lists(st.sampled_from(["accept", "complete", "ignore"]), min_size=3, max_size=3)
_CHILD_ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT", "TERMINATED")
_CLOSINGS = (
    complete_workflow(),
    fail_workflow(application_failure()),
    cancel_workflow(),
    continue_as_new(),
)
_BAD_CALLS = st.sampled_from(
    [
        start_child(""),
        signal_run(""),
        cancel_run(""),
        accept_update("none"),
        complete_update("none"),
    ]
)


class ModelledMachine(CallingMachine):
    """A chain of runs beside their models, at random.

    Attributes:
        steps: How many were made, by all lives.
        reached: What took part in them: events, facts and commands as the registry names them, and
            what calls ask that came to something.
    """

    steps: ClassVar = Counter[str]()
    reached: ClassVar[dict[str, set[object]]] = {}
    run: ModelledRun  # pyright: ignore[reportIncompatibleVariableOverride]
    command_made: ClassVar = CallingMachine.command_made | {
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED,
    }

    @initialize(options=STARTS, is_child=st.booleans())
    def start(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, options: dict[str, Any], is_child: bool
    ) -> None:
        self._parent = PARENT if is_child else None
        super().start(options)

    def _begin(self, options: dict[str, Any]) -> ModelledRun:
        return ModelledRun(LIMITS, parent=self._parent, **options)

    def _can_decide(self) -> bool:
        return self._has_task() or self._worker_has_task()

    def _turn(self, count: int) -> int:
        """One of so many things; not drawn, so that each comes about as often."""
        return (len(self.run.history) + len(self.run.stored)) % count

    # Updates.

    @rule(number=st.integers(0, 15), is_taken=st.booleans())
    def admit(self, number: int, is_taken: bool) -> None:
        update_id, run = f"u{number}", self.run
        if find_update(run.state, update_id) is not None or update_id in run.admitted:
            return
        if run.model.takes_update(len(run.admitted)):
            run.admit(update_id)
        else:
            with pytest.raises((UpdateLimitError, WorkflowClosedError, WorkflowNotReadyError)):
                run.admit(update_id)
        if is_taken:
            run.start_for_updates()

    @precondition(lambda self: bool(self.run.admitted))
    @rule()
    def take_task_for_updates(self) -> None:
        self.run.start_for_updates()

    @precondition(_can_decide)
    @rule(judgements=_JUDGEMENTS, more=GOOD_COMMANDS, completes=st.booleans())
    def judge_updates(
        self, judgements: list[str], more: list[command_pb2.Command], completes: bool
    ) -> None:
        if not self._worker_has_task():
            self.run.start_task()
        started = self.run.inflight.workflow_task
        assert started is not None
        commands: list[command_pb2.Command] = []
        if completes:
            commands += [complete_update(each) for each in sorted(self.run.model.open_updates)]
        for request, judgement in zip(started.updates, judgements, strict=False):
            if judgement != "ignore":
                commands.append(accept_update(request.update_id))
            if judgement == "complete":
                commands.append(complete_update(request.update_id))
        self.run.complete_task(*commands, *more[:1])

    @precondition(_can_decide)
    @rule(bad=_BAD_CALLS, more=GOOD_COMMANDS)
    def decide_badly(self, bad: command_pb2.Command, more: list[command_pb2.Command]) -> None:
        if not self._worker_has_task():
            self.run.start_task()
        assert self.run.complete_task(*more, bad).refused is not None

    def _has_speculative_task(self) -> bool:
        started = self.run.inflight.workflow_task
        return started is not None and started.is_speculative

    @precondition(_has_speculative_task)
    @rule()
    def reject_all(self) -> None:
        self.run.discard_task()

    # More of what is rare otherwise.

    @precondition(_can_decide)
    @rule(first=GOOD_COMMANDS, calls=CALLS)
    def decide_well(
        self, first: list[command_pb2.Command], calls: list[command_pb2.Command]
    ) -> None:
        self.complete_task([*first, *calls], [], [], force=False)

    @precondition(lambda self: bool(self._ready_ids()))
    @rule(end=st.sampled_from(["complete", "fail", "fail for good", "lose"]), beats=st.booleans())
    def run_activity(self, end: str, beats: bool) -> None:
        run, activity_id = self.run, self._ready_ids()[0]
        run.start_activity(activity_id)
        if beats:
            run.heartbeat(activity_id, "half")
        match end:
            case "complete":
                run.complete_activity(activity_id)
            case "lose":
                run.lose_activity(activity_id)
            case _:
                failure = application_failure(non_retryable=end == "fail for good")
                run.fail_activity(activity_id, failure)

    @precondition(_can_decide)
    @rule()
    def lose_an_attempt_that_may_start_once(self) -> None:
        once = workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE
        self.decide_well([schedule_activity("once", delivery=once)], [])
        if "once" in self._ready_ids():
            self.run.start_activity("once")
            self.run.lose_activity("once")

    @precondition(RunMachine._worker_has_task)
    @rule(number=st.integers(0, 200), goes_on=st.booleans(), fails=st.booleans())
    def lose_host_beside_a_pause(self, number: int, goes_on: bool, fails: bool) -> None:
        if fails:
            self.run.fail_task()
        if self._has_task():
            self.run.start_task()
        self.run.pause(f"p{number}")
        if goes_on:
            self.run.unpause(f"u{number}")
        self.run.lose_host()

    @precondition(_can_decide)
    @rule(is_started=st.booleans(), chance=st.integers(0, 1))
    def end_with_calls_under_way(self, is_started: bool, chance: int) -> None:
        self.decide_well([], [start_child(), signal_run(), cancel_run()])
        if self._is_open() and chance == 0:
            if is_started:
                for call in self.run.owed_calls():
                    self.run.answer(call, RUN_CALL_RESULT_DONE, CHILD_ID)
                    break
            self.run.terminate()

    @precondition(lambda self: not self.run.state.is_open and bool(self.run.owed_calls()))
    @rule()
    def settle(self) -> None:
        """What a closed run owes ends: a start, and then what the policy says."""
        for _ in range(2):
            for call in self.run.owed_calls():
                assert self.run.answer(call, RUN_CALL_RESULT_DONE, CHILD_ID) is not None
        assert not owes(self.run.state)

    @precondition(lambda self: bool(self.run.owed_calls()))
    @rule()
    def answer_owed_calls(self) -> None:
        for call in self.run.owed_calls():
            is_done = self._turn(2) == 0
            result = RUN_CALL_RESULT_DONE if is_done else RUN_CALL_RESULT_NOT_FOUND
            assert self.run.answer(call, result, CHILD_ID) is not None

    @precondition(lambda self: self._can_decide() and bool(self.run.state.activities))
    @rule()
    def ask_all_activities_to_cancel(self) -> None:
        if not self._worker_has_task():
            self.run.start_task()
        self.run.complete_task(
            *(cancel_activity(each) for each in sorted(self.run.state.activities))
        )

    @precondition(_can_decide)
    @rule(calls=st.booleans(), chance=st.integers(0, 2))
    def close_well(self, calls: bool, chance: int) -> None:
        if chance == 0:
            if not self._worker_has_task():
                self.run.start_task()
            closing = _CLOSINGS[self._turn(len(_CLOSINGS))]
            self.run.complete_task(*([start_child(), signal_run()] if calls else []), closing)

    @precondition(_can_decide)
    @rule(is_answered=st.booleans())
    def see_a_child_to_its_end(self, is_answered: bool) -> None:
        self.decide_well([], [start_child()])
        children = sorted(children_of(self.run.state))
        if is_answered:
            for call in self.run.owed_calls():
                self.run.answer(call, RUN_CALL_RESULT_DONE, CHILD_ID)
        for event_id in children:
            name = _CHILD_ENDS[self._turn(len(_CHILD_ENDS))]
            self.run.hear_closed(event_id, close_event(name))

    @precondition(_can_decide)
    @rule(backoff=st.sampled_from([0, 5]), chance=st.integers(0, 2))
    def continue_as_new(self, backoff: float, chance: int) -> None:
        if chance == 0:
            if not self._worker_has_task():
                self.run.start_task()
            self.run.complete_task(continue_as_new(backoff_start_interval=seconds(backoff)))

    @precondition(lambda self: not self.run.state.is_open)
    @rule(chance=st.integers(0, 1), options=STARTS)
    def go_on(self, chance: int, options: dict[str, Any]) -> None:
        """The life goes on with the run that continues this one, or with another."""
        if chance:
            self._note_reached()
            if self.run.owed_calls():
                self.settle()
            is_continued = self.run.begun is not None
            self._follow(self.run.continued() if is_continued else self._begin(options))

    # Cuts.

    @rule(where=st.floats(0, 1), snapshot=st.floats(0, 1))
    def cut(self, where: float, snapshot: float) -> None:
        """A host that reads the log up to some record, from a snapshot or from its start."""
        run = self.run
        count = 1 + round(where * (len(run.stored) - 1))
        moment = run.moments[count - 1]
        records = [log_pb2.LogRecord.FromString(stored) for stored in run.stored[:count]]
        state = new_state(run.key, records[0])
        loaded = int(snapshot * count)
        for index in range(count):
            if index == loaded and index > 0:
                data = run.moments[index - 1].snapshot
                state = from_snapshot(run.key, state.run_seq, state.hash, data)
            apply(state, records[index], run.stored[index])
        assert state.run_seq == count
        assert to_snapshot(state) == moment.snapshot
        assert owed_after_loss(state, moment.now, moment.at) == moment.owed

    # What must hold after each step.

    @invariant()
    def history_is_the_one_that_the_model_has(self) -> None:
        assert self.run.names() == self.run.model.history
        self.steps["made"] += 1

    @invariant()
    def model_has_what_is_open(self) -> None:
        state, model = self.run.state, self.run.model
        assert (state.is_open, state.is_paused) == (model.is_open, model.is_paused)
        assert (state.workflow_task.attempt if state.workflow_task else None) == model.task
        assert state.first_task_time == model.first_task_time
        assert {
            key: bool(activity.cancel_requested_event_id)
            for key, activity in state.activities.items()
        } == {key: activity.cancel_requested for key, activity in model.activities.items()}
        assert {key: timer.fire_time for key, timer in state.timers.items()} == model.timers
        assert {key: bool(child.run_id) for key, child in children_of(state).items()} == {
            key: child.is_started for key, child in model.children.items()
        }
        updates = state.parts.find(Updates) or Updates()
        assert updates.open.keys() == model.open_updates
        assert updates.completed.keys() == model.completed_updates
        buffered = [
            history_pb2.EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
            for event in state.buffered_events
        ]
        assert buffered == [event.name for event in model.buffer]
        assert state.request_ids == model.signal_ids
        assert state.cancel_requested == model.cancel_requested

    @invariant()
    def model_has_what_is_owed(self) -> None:
        assert {number_of(call) for call in self.run.owed_calls()} == self.run.model.owed_calls()
        # A host that takes the run over offers the pending workflow task, unless it backs off.
        task = self.run.model.task
        if task == 1:
            assert any(ref.attempt == 1 for ref in self.run.refs) or self.run.model.is_paused

    def _note_reached(self) -> None:
        for record in self.run.records:
            names = {fact_name(fact) for fact in record.facts}
            self.reached.setdefault("facts", set()).update(names)
        events = {event.event_type for event in self.run.history}
        self.reached.setdefault("events", set()).update(events)
        self.reached.setdefault("commands", set()).update(self.run.taken)
        self.reached.setdefault("answers", set()).update(self.run.answered)

    def teardown(self) -> None:
        if hasattr(self, "run"):
            self._note_reached()


_BY_RESETS_ALONE = {"machine_fact:reset"}
"""What only a run has that begins as another did: see `begin_anew`, which makes such."""

_SETTINGS = settings(
    max_examples=1000,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def test_random_lives_are_as_the_model_says_and_reach_everything() -> None:
    ModelledMachine.steps.clear()
    ModelledMachine.reached.clear()
    run_state_machine_as_test(cast("Any", ModelledMachine), settings=_SETTINGS)
    reached = ModelledMachine.reached
    assert reached["events"] == RUN_MACHINES.events.keys()
    assert reached["commands"] == RUN_MACHINES.commands.keys()
    facts = RUN_MACHINES.facts.keys() | {"event_buffered", "buffer_flushed"}
    assert reached["facts"] == facts - _BY_RESETS_ALONE
    assert reached["answers"] == RUN_MACHINES.answered.keys()
    assert ModelledMachine.steps["made"] >= _MIN_STEPS
