"""What a child owes its parent: word of how its chain ended, once."""

import pytest

from aetheris.server.v1.run_calls_pb2 import RUN_CALL_RESULT_NOT_FOUND, RunCall
from aetheris_server.history.state.machines.lifecycle.close import decide_terminated
from aetheris_server.history.state.machines.parent import note_told
from aetheris_server.history.state.obligations import owes
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import (
    KEY,
    PARENT,
    RunDriver,
    application_failure,
    complete_workflow,
    fail_workflow,
)


def _child() -> RunDriver:
    return RunDriver(parent=PARENT)


def test_run_of_nobody_owes_nothing_when_it_closes() -> None:
    run = RunDriver()
    run.run_task(complete_workflow())
    assert not owes(run.state)
    assert not run.calls
    assert not run.state.parts


@pytest.mark.parametrize("command", [complete_workflow(), fail_workflow(application_failure())])
def test_child_that_closes_tells_its_parent(command: object) -> None:
    run = _child()
    assert not run.owed_calls()
    run.run_task(command)  # type: ignore[arg-type]
    (call,) = run.calls
    assert run.owed_calls() == [call]
    assert (call.target.name, call.target.id) == ("parent", "parent-run")
    assert call.request_id == f"{KEY.run_id}/{run.history[-1].event_id}"
    closed = RunCall.FromString(call.payload).child_closed
    assert closed.close_event == run.history[-1]
    assert closed.initiated_event_id == PARENT.initiated_event_id
    assert closed.first_execution_run_id == KEY.run_id


@pytest.mark.parametrize("is_parent_there", [True, False])
def test_child_tells_until_it_is_answered(is_parent_there: bool) -> None:
    run = _child()
    run.run_task(complete_workflow())
    (call,) = run.calls
    assert owes(run.fold())
    answer = run.answer(call) if is_parent_there else run.answer(call, RUN_CALL_RESULT_NOT_FOUND)
    assert answer is not None
    assert not answer.events
    assert not owes(run.state)
    assert run.answer(call) is None
    state = run.state
    assert not owes(from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state)))


@pytest.mark.parametrize("is_by_parent", [True, False])
def test_child_that_its_parent_terminates_need_not_tell_it(is_by_parent: bool) -> None:
    run = _child()
    record = decide_terminated(
        run.state,
        run.inflight,
        reason="",
        details=None,
        identity="history",
        request_id=f"{PARENT.execution.run_id}/-{PARENT.initiated_event_id}",
        now=run.now,
    )
    assert record is not None
    if is_by_parent:
        note_told(record)
    run.commit(record)
    assert owes(run.state) == owes(run.fold()) == bool(run.calls) == (not is_by_parent)


def test_child_shows_its_parent_and_root_in_its_first_event() -> None:
    started = _child().history[0].workflow_execution_started_event_attributes
    assert started.parent_workflow_execution == PARENT.execution
    assert started.root_workflow_execution == PARENT.root
    assert started.parent_namespace_id == PARENT.namespace_id
    assert started.parent_namespace == PARENT.namespace
