"""The tables of the worker's machines: whole, and each event with one owner."""

import pytest

from aetheris.api.v1 import history_pb2
from aetheris_client.converter import DataConverter
from aetheris_worker import workflow
from aetheris_worker.runtime.commands import CommandLog
from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.machine import Machine
from aetheris_worker.runtime.machines.activity import Activities
from aetheris_worker.runtime.machines.timer import Timers
from aetheris_worker.runtime.parts import Parts, RunScope
from aetheris_worker.runtime.registry import RUN_MACHINES, Registry
from tests.support.history_builder import HistoryBuilder
from tests.unit.worker.driver import Session

_FIRED = history_pb2.EVENT_TYPE_TIMER_FIRED


@workflow.defn
class Idle:
    @workflow.run
    async def run(self) -> None:
        return


def test_registry_refuses_two_machines_that_claim_one_event() -> None:
    machines = (
        Machine(name="a", events={_FIRED: lambda _, __, ___: None}),
        Machine(name="b", ignored=frozenset({_FIRED})),
    )
    with pytest.raises(ValueError, match="machines a and b both claim the event TIMER_FIRED"):
        Registry(machines)


def test_event_of_no_machine_is_described_by_its_type() -> None:
    event = history_pb2.HistoryEvent(event_type=history_pb2.EVENT_TYPE_NEXUS_OPERATION_STARTED)
    assert RUN_MACHINES.describe(event) == "nexus operation started"


def test_event_of_command_is_described_by_its_machine() -> None:
    history = HistoryBuilder("Flow")
    history.activity_scheduled("1", "work")
    assert RUN_MACHINES.describe(history.events[-1]) == "activity '1' of type 'work'"


def test_part_is_made_once_when_it_is_first_asked_for() -> None:
    loop = WorkflowLoop(None, lambda _, __: pytest.fail("no timers here"))
    parts = Parts(RunScope(loop, CommandLog(RUN_MACHINES.describe), DataConverter.default()))
    assert parts.find(Timers) is None
    made = parts.make(Timers)
    assert parts.make(Timers) is made
    assert parts.find(Timers) is made


def test_run_that_uses_no_activity_or_timer_has_no_part_for_them() -> None:
    session = Session(Idle)
    session.step()
    parts = session.machine.run.parts
    assert parts.find(Activities) is None
    assert parts.find(Timers) is None
