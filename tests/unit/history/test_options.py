"""The build that a run is pinned to: what requests make of it, and where its tasks go."""

from collections.abc import Callable, Sequence

import pytest

from aetheris.api.v1 import history_pb2
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import WorkflowClosedError
from aetheris_server.history.aggregates.obligation import Obligation
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.state.machines.lifecycle.successor import decide_continued
from aetheris_server.history.state.machines.workflow_task.tasks import workflow_ref
from aetheris_server.history.state.obligations import obligations
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.run_options import RunOptions, pinned_build_id
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import (
    KEY,
    RunDriver,
    complete_workflow,
    continue_as_new,
    payloads,
    schedule_activity,
    start_timer,
)

_UPDATED = "WORKFLOW_EXECUTION_OPTIONS_UPDATED"

# Each state of the machine, and how a run comes into it.
STATES: dict[str, Callable[[], RunDriver]] = {
    "unpinned": RunDriver,
    "pinned by its start": lambda: RunDriver(pinned_build_id="b1"),
    "pinned": lambda: _updated(RunDriver(), "b1"),
    "pinned to another": lambda: _updated(RunDriver(pinned_build_id="b1"), "b2"),
    "unpinned again": lambda: _updated(RunDriver(pinned_build_id="b1"), ""),
    "closed": lambda: _closed(_updated(RunDriver(), "b1")),
}

# What each request leads to: the build from then on, None where nothing is written.
TABLE: dict[tuple[str, str], str | None] = {
    ("unpinned", "b1"): "b1",
    ("unpinned", "b2"): "b2",
    ("unpinned", ""): None,
    ("pinned by its start", "b1"): None,
    ("pinned by its start", "b2"): "b2",
    ("pinned by its start", ""): "",
    ("pinned", "b1"): None,
    ("pinned", "b2"): "b2",
    ("pinned", ""): "",
    ("pinned to another", "b1"): "b1",
    ("pinned to another", "b2"): None,
    ("pinned to another", ""): "",
    ("unpinned again", "b1"): "b1",
    ("unpinned again", "b2"): "b2",
    ("unpinned again", ""): None,
}


def _updated(run: RunDriver, build_id: str) -> RunDriver:
    assert run.update_options(build_id, "earlier") is not None
    return run


def _closed(run: RunDriver) -> RunDriver:
    run.terminate()
    return run


def _reread(state: RunState) -> RunState:
    return from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state))


def _builds(refs: Sequence[Obligation]) -> list[tuple[int, list[str]]]:
    tasks = [ref for ref in refs if isinstance(ref, TaskRef)]
    return [(task.scheduled_event_id, list(task.capabilities)) for task in tasks]


@pytest.mark.parametrize("build_id", ["b1", "b2", ""])
@pytest.mark.parametrize("state", STATES)
def test_request_in_each_state_leads_to_what_the_table_says(state: str, build_id: str) -> None:
    run = STATES[state]()
    before = len(run.records)
    if state == "closed":
        with pytest.raises(WorkflowClosedError):
            run.update_options(build_id, "new")
        assert len(run.records) == before
        return
    expected = TABLE[state, build_id]
    assert (run.update_options(build_id, "new") is not None) == (expected is not None)
    assert len(run.records) == before + (expected is not None)
    assert pinned_build_id(run.state) == build_id
    for state_of in (run.fold(), _reread(run.state)):
        assert pinned_build_id(state_of) == build_id
        assert state_of.held_bytes == run.state.held_bytes


@pytest.mark.parametrize("state", STATES)
def test_request_that_was_recorded_changes_nothing(state: str) -> None:
    run = STATES[state]()
    if state in ("unpinned", "pinned by its start"):
        assert RunOptions not in run.state.parts
        return
    before = pinned_build_id(run.state)
    assert run.update_options("b9", "earlier") is None
    assert pinned_build_id(run.state) == before


def test_event_says_who_changed_what_and_why() -> None:
    run = _updated(RunDriver(), "b1")
    assert run.names(1) == [_UPDATED]
    attributes = run.history[-1].workflow_execution_options_updated_event_attributes
    assert (attributes.pinned_build_id, attributes.request_id) == ("b1", "earlier")
    assert attributes.reason == "a mistake in it"
    assert not attributes.HasField("priority")


def test_event_of_a_priority_alone_leaves_the_build_as_it_is() -> None:
    run = _updated(RunDriver(), "b1")
    record = run.update_options("b2", "other")
    assert record is not None
    record.events[0].workflow_execution_options_updated_event_attributes.ClearField(
        "pinned_build_id"
    )
    run.stored[-1] = record.SerializeToString()
    assert pinned_build_id(run.fold()) == "b1"


def test_task_that_waits_is_offered_to_the_other_build() -> None:
    run = RunDriver(pinned_build_id="b1")
    run.update_options("b2")
    assert _builds(run.refs) == [(2, ["build-id:b1"]), (2, ["build-id:b2"])]
    run.update_options("", "o2")
    assert _builds(run.refs[2:]) == [(2, [])]
    assert _builds(obligations(run.state, run.inflight, run.now)) == [(2, [])]


def test_query_goes_to_the_build_as_well() -> None:
    run = RunDriver(pinned_build_id="b1")
    assert list(workflow_ref(run.state, run.inflight).capabilities) == ["build-id:b1"]
    assert not workflow_ref(RunDriver().state, run.inflight).capabilities


def test_run_that_waits_for_something_else_gets_no_task_by_a_move() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5))
    run.refs.clear()
    run.update_options("b2")
    assert run.names(1) == [_UPDATED]
    assert run.refs == []
    run.advance(5)
    assert _builds(run.refs) == [(run.state.next_event_id - 1, ["build-id:b2"])]


def test_move_while_a_worker_has_the_task_counts_from_the_next_one_on() -> None:
    run = RunDriver(pinned_build_id="b1")
    run.start_task()
    run.update_options("b2")
    assert run.history[-1].event_type != history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_OPTIONS_UPDATED
    run.complete_task(schedule_activity(), force_create_new_workflow_task=True)
    assert run.names(5) == [
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "ACTIVITY_TASK_SCHEDULED",
        _UPDATED,
        "WORKFLOW_TASK_SCHEDULED",
    ]
    assert _builds(run.refs[-1:]) == [(run.state.next_event_id - 1, ["build-id:b2"])]


def test_moves_while_a_worker_has_the_task_come_in_order() -> None:
    run = RunDriver()
    run.start_task()
    for number, build_id in enumerate(("b1", "b2", "")):
        run.update_options(build_id, f"o{number}")
        assert pinned_build_id(run.state) == pinned_build_id(run.fold()) == build_id
    run.complete_task()
    assert pinned_build_id(run.state) == pinned_build_id(run.fold()) == ""
    assert run.update_options("b9", "o0") is None


def test_move_while_a_worker_decides_calls_for_no_task_and_holds_up_no_end() -> None:
    run = RunDriver(pinned_build_id="b1")
    run.start_task()
    run.update_options("b2")
    run.complete_task()
    assert run.names(1) == [_UPDATED]
    assert run.state.workflow_task is None
    run.signal()
    run.start_task()
    run.update_options("b1", "o2")
    assert run.complete_task(complete_workflow()).refused is None
    assert run.names(2) == [_UPDATED, "WORKFLOW_EXECUTION_COMPLETED"]


def test_move_while_a_worker_fails_has_the_next_attempt_go_to_the_other_build() -> None:
    run = RunDriver(pinned_build_id="b1")
    run.start_task()
    run.update_options("b2")
    run.refs.clear()
    run.fail_task()
    assert run.names(2) == ["WORKFLOW_TASK_FAILED", _UPDATED]
    assert [(ref.attempt, list(ref.capabilities)) for ref in run.refs] == [(2, ["build-id:b2"])]


def test_move_whose_host_is_lost_while_a_task_is_tried_again_keeps_its_place() -> None:
    run = RunDriver(pinned_build_id="b1")
    run.start_task()
    run.fail_task()
    run.start_task()
    run.update_options("b2")
    run.lose_host()
    task = run.state.workflow_task
    assert task is not None
    assert run.names(2) == [_UPDATED, "WORKFLOW_TASK_SCHEDULED"]
    assert task.scheduled_event_id == run.state.next_event_id - 1
    assert _builds(run.refs[-1:]) == [(task.scheduled_event_id, ["build-id:b2"])]


def test_move_of_a_paused_run_counts_when_it_goes_on() -> None:
    run = RunDriver(pinned_build_id="b1")
    run.pause()
    run.refs.clear()
    run.update_options("b2")
    assert run.refs == []
    run.unpause()
    assert _builds(run.refs) == [(2, ["build-id:b2"])]


def test_move_has_a_task_that_failed_tried_by_the_other_build_at_once() -> None:
    run = RunDriver(pinned_build_id="b1")
    for _ in range(3):
        run.start_task()
        run.fail_task()
        run.advance(10)
    run.refs.clear()
    run.update_options("b2")
    assert run.names(2) == [_UPDATED, "WORKFLOW_TASK_SCHEDULED"]
    assert _builds(run.refs) == [(run.state.next_event_id - 1, ["build-id:b2"])]
    assert run.refs[0].attempt == 1


def test_delayed_start_is_not_begun_by_a_move() -> None:
    run = RunDriver(start_delay={"seconds": 60})
    run.update_options("b2")
    assert run.names(1) == [_UPDATED]
    assert run.refs == []
    run.advance(60)
    assert _builds(run.refs) == [(3, ["build-id:b2"])]


def test_lost_host_leaves_the_task_to_the_build_of_the_log() -> None:
    run = RunDriver(pinned_build_id="b1")
    run.update_options("b2")
    run.lose_host()
    assert _builds(obligations(run.state, run.inflight, run.now)) == [(2, ["build-id:b2"])]


@pytest.mark.parametrize("build_id", ["b2", ""])
def test_run_that_goes_on_as_new_stays_where_it_was_pinned_last(build_id: str) -> None:
    run = RunDriver(pinned_build_id="b1")
    run.update_options(build_id)
    run.run_task(continue_as_new(input=payloads("next")))
    assert run.state.close_event is not None
    _, record = decide_continued(run.state, run.state.close_event)
    started = record.events[0].workflow_execution_started_event_attributes
    assert started.pinned_build_id == build_id


def test_run_of_which_nothing_was_set_has_nothing() -> None:
    run = RunDriver()
    run.run_task(complete_workflow())
    assert RunOptions not in run.state.parts
    assert not run.history[0].workflow_execution_started_event_attributes.pinned_build_id


def test_requests_that_are_remembered_are_bounded_and_counted() -> None:
    run = RunDriver()
    for number in range(120):
        run.update_options(f"b{number % 2}", f"o{number}")
    options = run.state.parts.find(RunOptions)
    assert options is not None
    assert options.request_ids == [f"o{number}" for number in range(20, 120)]
    assert 12_800 < run.state.held_bytes < 14_000
    assert LoadedRun(0, run.state).estimate_bytes() > run.state.held_bytes
    assert _reread(run.state).held_bytes == run.fold().held_bytes == run.state.held_bytes
