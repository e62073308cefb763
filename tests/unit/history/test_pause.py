"""Pausing a run: nothing of it is given out, and all of it that waits goes on with it."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from aetheris.api.v1 import failure_pb2, history_pb2, workflow_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.api.v1.workflow_service_pb2 import DescribeWorkflowResponse
from aetheris_server.errors import WorkflowClosedError
from aetheris_server.history.state.deadlines import next_deadline
from aetheris_server.history.state.machines.activity import starting as activity_starting
from aetheris_server.history.state.machines.workflow_task import starting as task_starting
from aetheris_server.history.state.obligations import owes
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import (
    KEY,
    RunDriver,
    complete_workflow,
    ref_ids,
    schedule_activity,
    seconds,
    start_timer,
)

_RUNNING = workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
_PAUSED = workflow_pb2.WORKFLOW_EXECUTION_STATUS_PAUSED

_WORKFLOW = TASK_QUEUE_TYPE_WORKFLOW
_ACTIVITY = TASK_QUEUE_TYPE_ACTIVITY


def _owed(run: RunDriver) -> set[tuple[int, int, int]]:
    return ref_ids(run.owed_tasks())


def _brought(run: RunDriver) -> Sequence[tuple[int, int, int]]:
    """What has been offered since this was last asked, each time that it was."""
    refs = [(ref.task_queue_type, ref.scheduled_event_id, ref.attempt) for ref in run.refs]
    run.refs.clear()
    return refs


# The table: running and paused, by every input.


@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_pause_moves_by_its_table(verb: str, is_paused: bool) -> None:
    run = RunDriver()
    if is_paused:
        run.pause("before")
    record = run.pause() if verb == "pause" else run.unpause()
    moves = (verb == "pause") != is_paused
    assert (record is not None) == moves
    assert run.state.status == (_PAUSED if verb == "pause" else _RUNNING)


@pytest.mark.parametrize("verb", ["pause", "unpause"])
def test_closed_run_is_neither_paused_nor_unpaused(verb: str) -> None:
    run = RunDriver()
    run.run_task(complete_workflow())
    with pytest.raises(WorkflowClosedError):
        run.pause() if verb == "pause" else run.unpause()


@pytest.mark.parametrize("late", ["pause", "unpause"])
def test_request_that_comes_again_late_changes_nothing(late: str) -> None:
    run = RunDriver()
    run.pause("p1")
    run.unpause("u1")
    if late == "pause":
        assert run.pause("p1") is None
        assert run.state.status == _RUNNING
    else:
        run.pause("p2")
        assert run.unpause("u1") is None
        assert run.state.status == _PAUSED


def test_hundred_requests_are_remembered_and_no_more() -> None:
    run = RunDriver()
    for number in range(60):
        run.pause(f"p{number}")
        run.unpause(f"u{number}")
    held = run.state.held_bytes
    assert run.unpause("u59") is None
    assert run.pause("p0") is not None
    run.unpause("u0")
    assert run.state.held_bytes == pytest.approx(held, abs=10)


# What is given out.


def test_nothing_of_a_paused_run_is_owed_and_all_of_it_once_it_goes_on() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"), force_create_new_workflow_task=True)
    before = _owed(run)
    assert before == {(_ACTIVITY, 5, 1), (_WORKFLOW, 6, 1)}
    run.pause()
    _brought(run)
    assert not owes(run.state)
    assert _owed(run) == set()
    assert not task_starting.is_startable(run.state, run.inflight, 6, 1, run.now)
    assert not activity_starting.is_startable(run.state, run.inflight, 5, 1, run.now)
    run.unpause()
    assert owes(run.state)
    assert _owed(run) == before
    assert sorted(_brought(run)) == sorted(before)


def test_event_sequence_of_a_pause() -> None:
    run = RunDriver()
    run.run_task(start_timer(timeout=5))
    run.pause()
    run.signal()
    run.advance(6)
    run.unpause()
    run.run_task()
    assert run.names()[5:] == [
        "WORKFLOW_EXECUTION_PAUSED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "TIMER_FIRED",
        "WORKFLOW_EXECUTION_UNPAUSED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
    ]
    paused = run.last_event("WORKFLOW_EXECUTION_PAUSED").workflow_execution_paused_event_attributes
    assert (paused.identity, paused.reason, paused.request_id) == ("operator", "wait", "p1")


def test_pause_while_a_worker_decides_counts_at_once_and_is_shown_behind_its_commands() -> None:
    run = RunDriver()
    run.start_task()
    run.pause()
    assert run.state.status == _PAUSED
    run.complete_task(schedule_activity("a"))
    assert run.names(3) == [
        "WORKFLOW_TASK_COMPLETED",
        "ACTIVITY_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_PAUSED",
    ]
    assert _owed(run) == set()
    _brought(run)
    run.unpause()
    assert _brought(run) == [(_ACTIVITY, 5, 1)]


def test_unpause_while_a_worker_decides_gives_out_activities_at_once_and_once() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"), force_create_new_workflow_task=True)
    run.start_task()
    run.pause()
    _brought(run)
    run.unpause()
    assert _brought(run) == [(_ACTIVITY, 5, 1)]
    run.complete_task()
    assert run.names(2) == ["WORKFLOW_EXECUTION_PAUSED", "WORKFLOW_EXECUTION_UNPAUSED"]
    assert _brought(run) == []


def test_paused_run_closes_by_what_its_worker_had_decided() -> None:
    run = RunDriver()
    run.start_task()
    run.pause()
    decision = run.complete_task(complete_workflow())
    assert decision.refused is None
    assert run.names(2) == ["WORKFLOW_EXECUTION_PAUSED", "WORKFLOW_EXECUTION_COMPLETED"]
    assert run.state.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED


def test_signal_behind_a_pause_still_keeps_the_code_from_closing() -> None:
    run = RunDriver()
    run.start_task()
    run.pause()
    run.signal()
    assert run.complete_task(complete_workflow()).refused is not None
    assert run.state.status == _PAUSED


# Time.


def test_workflow_task_that_backs_off_is_not_looked_at_while_paused() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.start_task()
    run.pause()
    run.fail_task()
    assert run.names(1) == ["WORKFLOW_EXECUTION_PAUSED"]
    run.advance(60)
    assert next_deadline(run.state, run.inflight, run.now) is None
    _brought(run)
    run.unpause()
    assert len(_brought(run)) == 1
    assert run.start_task().attempt == 1


def test_transient_task_becomes_a_first_attempt_whose_ids_fit() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.pause()
    run.unpause()
    run.run_task()
    assert [event.event_id for event in run.history] == list(range(1, len(run.history) + 1))


@pytest.mark.parametrize("goes_on", [False, True])
def test_transient_task_that_is_lost_beside_a_pause_becomes_one_whose_ids_fit(
    goes_on: bool,
) -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.start_task()
    run.pause()
    if goes_on:
        run.unpause()
    run.lose_host()
    task = run.state.workflow_task
    assert task is not None
    assert (task.attempt, task.scheduled_event_id) == (1, run.history[-1].event_id)
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]
    if not goes_on:
        run.unpause()
    run.run_task()
    started = run.last_event("WORKFLOW_TASK_STARTED").workflow_task_started_event_attributes
    assert started.scheduled_event_id == task.scheduled_event_id


def test_retry_backs_off_at_least_as_long_as_the_pause_takes() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"))
    run.start_activity()
    run.pause()
    run.fail_activity()
    run.advance(0.5)
    assert next_deadline(run.state, run.inflight, run.now) is None
    _brought(run)
    run.unpause()
    assert _brought(run) == []
    assert next_deadline(run.state, run.inflight, run.now) == run.now + timedelta(seconds=0.5)
    assert run.wake_time is not None
    assert run.wake_time <= run.now + timedelta(seconds=0.5)
    run.advance(0.5)
    assert _brought(run) == [(_ACTIVITY, 5, 2)]


def test_time_to_find_a_worker_counts_anew_when_the_run_goes_on() -> None:
    run = RunDriver()
    run.run_task(
        schedule_activity(start_to_close_timeout=seconds(10), schedule_to_start_timeout=seconds(20))
    )
    run.pause()
    run.advance(100)
    assert run.names(1) == ["WORKFLOW_EXECUTION_PAUSED"]
    run.unpause()
    run.advance(19)
    assert "a" in run.state.activity_ids
    run.advance(1)
    timed_out = run.last_event("ACTIVITY_TASK_TIMED_OUT").activity_task_timed_out_event_attributes
    timeout_type = timed_out.failure.timeout_failure_info.timeout_type
    assert timeout_type == failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START


def test_deadlines_of_the_run_and_of_the_activity_as_a_whole_go_on() -> None:
    run = RunDriver(workflow_run_timeout=seconds(100))
    run.run_task(schedule_activity(schedule_to_close_timeout=seconds(30)))
    run.pause()
    run.advance(30)
    assert run.names(2) == ["ACTIVITY_TASK_TIMED_OUT", "WORKFLOW_TASK_SCHEDULED"]
    assert _owed(run) == set()
    run.advance(70)
    assert run.names(1) == ["WORKFLOW_EXECUTION_TIMED_OUT"]


def test_delayed_start_of_a_paused_run_is_scheduled_and_waits() -> None:
    run = RunDriver(start_delay=seconds(10))
    run.pause()
    run.advance(10)
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]
    assert _owed(run) == set()
    run.unpause()
    assert len(_owed(run)) == 1


# Crashes, snapshots, what people see.


@pytest.mark.parametrize("is_started", [False, True])
def test_pause_survives_the_host_and_so_does_its_end(is_started: bool) -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"), force_create_new_workflow_task=True)
    if is_started:
        run.start_task()
        run.start_activity()
    run.pause()
    run.lose_host()
    assert run.state.status == _PAUSED
    assert not owes(run.state)
    assert _owed(run) == set()
    _brought(run)
    run.unpause()
    assert {kind for kind, *_ in _brought(run)} == {_ACTIVITY, _WORKFLOW}
    run.lose_host()
    assert len(_owed(run)) == 2


def test_snapshot_has_the_pause_and_the_requests() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"))
    for number in range(3):
        run.pause(f"p{number}")
        loaded = from_snapshot(KEY, run.state.run_seq, run.state.hash, to_snapshot(run.state))
        assert loaded == run.state == run.fold()
        run.unpause(f"u{number}")
        loaded = from_snapshot(KEY, run.state.run_seq, run.state.hash, to_snapshot(run.state))
        assert loaded == run.state == run.fold()


def test_description_says_since_when_by_whom_and_why() -> None:
    run = RunDriver()
    run.pause()
    response = DescribeWorkflowResponse()
    for describe in RUN_MACHINES.describe:
        describe(run.state, run.inflight, response)
    assert response.pause_info.pause_time.ToDatetime(run.now.tzinfo) == run.now
    assert (response.pause_info.identity, response.pause_info.reason) == ("operator", "wait")
    assert response.workflow_execution_info.status == _PAUSED
    run.unpause()
    response = DescribeWorkflowResponse()
    for describe in RUN_MACHINES.describe:
        describe(run.state, run.inflight, response)
    assert not response.HasField("pause_info")


def test_terminated_run_holds_no_pause() -> None:
    run = RunDriver()
    run.pause()
    run.terminate()
    assert run.state.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_TERMINATED
    assert run.history[-1].event_type == history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED
    response = DescribeWorkflowResponse()
    for describe in RUN_MACHINES.describe:
        describe(run.state, run.inflight, response)
    assert not response.HasField("pause_info")
