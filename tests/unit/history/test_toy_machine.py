"""A machine that only `tests/support/alarm.py` knows lives through all that happens to a run."""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import UnknownRecordError
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.state.deadlines import next_deadline
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.machine import Machine, OnEvent, OnFact
from aetheris_server.history.state.obligations import owes
from aetheris_server.history.state.registry import RUN_MACHINES, Registry
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.alarm import (
    MACHINE,
    QUEUE,
    Alarms,
    alarms_of,
    alarms_served,
    decide_silenced,
    listen,
    set_alarms,
)
from tests.support.clock import ManualClock
from tests.support.memory_engine import MemoryEngine
from tests.support.runs import BEGIN, KEY, RunDriver, start_timer
from tests.unit.history.test_run_machine import RunMachine

_ADMITTED = history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ADMITTED


@pytest.fixture
def served() -> Iterator[None]:
    with alarms_served():
        yield


def _reread(state: RunState) -> RunState:
    return from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state))


def _fields(state: RunState) -> dict[str, object]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _ringing(refs: list[TaskRef]) -> list[int]:
    return [ref.scheduled_event_id for ref in refs if ref.task_queue == QUEUE]


def _with_ringing_alarm() -> RunDriver:
    run = RunDriver()
    run.run_task(set_alarms(tea=60), start_timer("t", 500))
    run.advance(60)
    return run


def test_command_without_its_machine_is_refused() -> None:
    run = RunDriver()
    decision = run.run_task(set_alarms(tea=60))
    assert decision.refused is not None
    assert "SCHEDULE_NEXUS_OPERATION is not served" in str(decision.refused)


@pytest.mark.usefixtures("served")
def test_command_becomes_an_event_a_value_and_a_deadline() -> None:
    run = RunDriver()
    run.run_task(set_alarms(tea=60, egg=30), start_timer("t", 500))
    assert run.names(2) == ["WORKFLOW_EXECUTION_UPDATE_ADMITTED", "TIMER_STARTED"]
    assert [alarm.name for alarm in alarms_of(run.state)] == ["egg", "tea"]
    assert run.wake_time == BEGIN + timedelta(seconds=30)
    assert owes(run.state)
    assert not run.refs[1:]


@pytest.mark.usefixtures("served")
def test_command_sees_what_earlier_ones_of_its_decision_have_changed() -> None:
    run = RunDriver()
    decision = run.run_task(set_alarms(tea=60), set_alarms(tea=70))
    assert decision.refused is not None
    assert decision.refused.command_index == 1
    assert not alarms_of(run.state)


@pytest.mark.usefixtures("served")
def test_deadline_brings_a_fact_and_a_task() -> None:
    run = RunDriver()
    run.run_task(set_alarms(tea=60))
    assert run.advance(59) is None
    record = run.advance(1)
    assert record is not None
    assert [fact.machine_fact.machine for fact in record.facts] == ["alarm"]
    assert _ringing(run.refs) == [run.last_event("WORKFLOW_EXECUTION_UPDATE_ADMITTED").event_id]
    assert run.advance(3600) is None


@pytest.mark.usefixtures("served")
def test_host_that_is_lost_before_the_deadline_forgets_nothing() -> None:
    run = RunDriver()
    run.run_task(set_alarms(tea=60))
    run.lose_host()
    assert next_deadline(run.state, run.inflight, run.now) == BEGIN + timedelta(seconds=60)
    assert run.advance(60) is not None


@pytest.mark.usefixtures("served")
def test_host_that_is_lost_while_somebody_has_the_task_offers_it_again() -> None:
    run = _with_ringing_alarm()
    event_ids = _ringing(run.owed_tasks())
    assert len(event_ids) == 1
    listen(run.inflight, "tea")
    assert not run.inflight.is_idle
    assert not _ringing(run.owed_tasks())
    run.lose_host()
    assert _ringing(run.owed_tasks()) == event_ids


@pytest.mark.usefixtures("served")
def test_task_that_is_done_is_not_owed_and_leaves_no_value() -> None:
    run = _with_ringing_alarm()
    listen(run.inflight, "tea")
    run.commit(decide_silenced(run.state, run.inflight, "tea", run.now))
    assert run.inflight.is_idle
    assert not run.state.parts
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]
    assert not _ringing(run.owed_tasks())
    assert _fields(run.fold()) == _fields(run.state) == _fields(_reread(run.state))


@pytest.mark.usefixtures("served")
def test_snapshot_and_log_give_the_same_state() -> None:
    run = _with_ringing_alarm()
    assert run.state.parts.find(Alarms) is not None
    assert _fields(_reread(run.state)) == _fields(run.state)
    assert _fields(run.fold()) == _fields(run.state)


@pytest.mark.usefixtures("served")
def test_run_that_closes_drops_its_values() -> None:
    run = _with_ringing_alarm()
    listen(run.inflight, "tea")
    run.terminate()
    assert not run.state.parts
    assert run.state.held_bytes == 0
    assert run.inflight.is_idle
    assert next_deadline(run.state, run.inflight, run.now) is None
    assert not owes(run.state)


def test_run_without_alarms_is_the_same_whether_they_are_served_or_not() -> None:
    run = RunDriver()
    run.run_task(start_timer())
    snapshot = to_snapshot(run.state)
    with alarms_served():
        assert to_snapshot(run.state) == snapshot
        assert not run.state.parts
        assert not owes(run.state)


def test_log_of_a_machine_that_is_not_there_is_refused() -> None:
    with alarms_served():
        run = _with_ringing_alarm()
        del run.stored[3:]
    with pytest.raises(UnknownRecordError, match=f"an event of type {_ADMITTED}"):
        run.fold()


def test_fact_of_a_machine_that_is_not_there_is_refused() -> None:
    with alarms_served():
        run = _with_ringing_alarm()
    events_alone = Machine(name="events", events=MACHINE.events)
    before = RUN_MACHINES.machines
    RUN_MACHINES.use((*before, events_alone))
    try:
        with pytest.raises(UnknownRecordError, match="the fact machine_fact:alarm"):
            run.fold()
    finally:
        RUN_MACHINES.use(before)


def test_snapshot_of_a_machine_that_is_not_there_is_refused() -> None:
    with alarms_served():
        run = _with_ringing_alarm()
        snapshot = to_snapshot(run.state)
    with pytest.raises(UnknownRecordError, match="the part of a machine 'alarm'"):
        from_snapshot(KEY, run.state.run_seq, run.state.hash, snapshot)


def test_finish_of_a_machine_goes_behind_a_signal_that_waited_with_it() -> None:
    finished: list[int] = []
    of_event = OnEvent(finish=lambda event, _: finished.append(event.event_id))
    before = RUN_MACHINES.machines
    RUN_MACHINES.use((*before, Machine(name="toy", events={_ADMITTED: of_event})))
    try:
        run = RunDriver()
        run.start_task()
        draft = Draft(run.state, run.inflight, run.now)
        draft.add_or_buffer(_ADMITTED, history_pb2.WorkflowExecutionUpdateAdmittedEventAttributes())
        run.commit(draft.record)
        run.signal()
        run.fail_task()
        admitted = run.last_event("WORKFLOW_EXECUTION_UPDATE_ADMITTED")
        assert run.last_event("WORKFLOW_EXECUTION_SIGNALED").event_id < admitted.event_id
        assert finished == [admitted.event_id]
    finally:
        RUN_MACHINES.use(before)


@pytest.mark.parametrize(
    "claim, what",
    [
        (Machine(name="alarm"), "name alarm"),
        (Machine(name="other", commands=MACHINE.commands), "command COMMAND_TYPE_SCHEDULE_NEXUS"),
        (
            Machine(name="other", events={_ADMITTED: OnEvent()}),
            "event EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ADM",
        ),
        (
            Machine(name="other", facts={"buffer_flushed": OnFact(lambda *_: None)}),
            "fact buffer_flushed",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Machine) else None,
)
def test_machines_that_claim_the_same_are_refused(claim: Machine, what: str) -> None:
    alarm = dataclasses.replace(MACHINE, facts={"buffer_flushed": OnFact(lambda *_: None)})
    with pytest.raises(ValueError, match=f"machines alarm and {claim.name} both claim the {what}"):
        Registry((alarm, claim))


def test_machines_of_the_server_know_nothing_of_alarms() -> None:
    assert "alarm" not in {machine.name for machine in RUN_MACHINES.machines}
    assert command_pb2.COMMAND_TYPE_SCHEDULE_NEXUS_OPERATION not in RUN_MACHINES.commands


@pytest.mark.usefixtures("served")
def test_engine_wakes_the_run_and_loads_it_again() -> None:
    engine = MemoryEngine(ManualClock())
    key = engine.start("a")
    engine.run_task(key, set_alarms(tea=600))
    engine.evict(key)
    assert engine.engine.cache.peek(key.run_id) is None
    engine.schedule_due(timedelta(seconds=600))
    engine.take_refs()
    engine.advance(600)
    assert engine.loads == 1
    assert _is_ringing(engine.load(key))
    assert len(_ringing(engine.take_refs())) == 1


def _is_ringing(run: LoadedRun) -> bool:
    return [alarm.is_ringing for alarm in alarms_of(run.state)] == [True]


class AlarmedRunMachine(RunMachine):
    """Random lives of a run that also sets alarms: all that holds of a run still does."""

    command_made = RunMachine.command_made | {_ADMITTED}

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._stack.enter_context(alarms_served())

    def teardown(self) -> None:
        self._stack.close()

    @precondition(lambda self: self._has_task())
    @rule(name=st.sampled_from("abc"), seconds=st.sampled_from([0.5, 3, 20]))
    def set_alarm(self, name: str, seconds: float) -> None:
        is_set = any(alarm.name == name for alarm in alarms_of(self.run.state))
        decision = self.run.run_task(set_alarms(**{name: seconds}))
        assert (decision.refused is not None) == is_set

    def _ringing_names(self) -> list[str]:
        return [alarm.name for alarm in alarms_of(self.run.state) if alarm.is_ringing]

    @precondition(lambda self: bool(self._ringing_names()))
    @rule()
    def take_alarm(self) -> None:
        listen(self.run.inflight, self._ringing_names()[0])

    @precondition(lambda self: bool(self._ringing_names()))
    @rule()
    def silence_alarm(self) -> None:
        name = self._ringing_names()[0]
        run = self.run
        run.commit(decide_silenced(run.state, run.inflight, name, run.now))


AlarmedRunMachine.TestCase.settings = settings(
    RunMachine.TestCase.settings, max_examples=60, stateful_step_count=40
)
TestAlarmedRunMachine = AlarmedRunMachine.TestCase
