from datetime import timedelta

import pytest

from aetheris.api.v1 import failure_pb2, history_pb2
from aetheris_server.errors import TaskNotFoundError
from aetheris_server.history.state.command_pass import Decision
from aetheris_server.history.state.draft import task_retry_interval
from aetheris_server.history.state.inflight import Sticky
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.workflow_task.ending import decide_flush
from aetheris_server.history.state.machines.workflow_task.starting import is_startable
from aetheris_server.history.state.obligations import obligations
from tests.support.runs import (
    WORKER,
    RunDriver,
    complete_workflow,
    record_marker,
    seconds,
    start_timer,
)

_NON_DETERMINISTIC = history_pb2.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR


def test_workflow_task_completed_writes_started_and_completed_together() -> None:
    run = RunDriver()
    run.start_task()
    assert len(run.records) == 1
    run.complete_task()
    assert run.names() == [
        "WORKFLOW_EXECUTION_STARTED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
    ]
    assert run.state.workflow_task is None
    assert run.state.previous_started_event_id == 3
    assert run.state.last_completed_event_id == 4


def test_workflow_task_started_event_is_the_one_the_worker_saw() -> None:
    run = RunDriver()
    started = run.start_task()
    seen = history_pb2.HistoryEvent()
    seen.CopyFrom(started.started_event)
    run.now += timedelta(seconds=1)
    run.signal()
    run.complete_task()
    assert run.history[2] == seen
    assert seen.workflow_task_started_event_attributes.request_id == "start-1"


def test_workflow_task_started_twice_is_refused() -> None:
    run = RunDriver()
    run.start_task()
    assert not is_startable(run.state, run.inflight, 2, 1, run.now)


def test_workflow_task_other_attempt_or_event_is_not_startable() -> None:
    run = RunDriver()
    assert is_startable(run.state, run.inflight, 2, 1, run.now)
    assert not is_startable(run.state, run.inflight, 2, 2, run.now)
    assert not is_startable(run.state, run.inflight, 3, 1, run.now)


def test_workflow_task_clock_steps_back_is_still_owed_and_startable() -> None:
    run = RunDriver()
    run.now -= timedelta(hours=1)
    assert len(obligations(run.state, run.inflight, run.now)) == 1
    run.start_task()


def test_workflow_task_answer_with_other_start_id_is_not_found() -> None:
    run = RunDriver()
    run.start_task()
    with pytest.raises(TaskNotFoundError):
        run.complete_task(start_id="start-0")
    assert run.inflight.workflow_task is not None


def test_workflow_task_second_answer_is_not_found() -> None:
    run = RunDriver()
    start_id = run.start_task().start_id
    run.complete_task()
    with pytest.raises(TaskNotFoundError):
        run.complete_task(start_id=start_id)


def test_workflow_task_answer_after_close_is_not_found() -> None:
    run = RunDriver()
    start_id = run.start_task().start_id
    run.terminate()
    with pytest.raises(TaskNotFoundError):
        run.complete_task(start_id=start_id)


def test_workflow_task_failed_is_tried_again_at_once_and_leaves_one_failure() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    assert run.names(2) == ["WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_FAILED"]
    failed = run.last_event("WORKFLOW_TASK_FAILED").workflow_task_failed_event_attributes
    assert failed.cause == _NON_DETERMINISTIC
    assert (failed.scheduled_event_id, failed.started_event_id) == (2, 3)
    task = run.state.workflow_task
    assert task is not None
    assert (task.attempt, task.scheduled_event_id) == (2, 5)
    assert [ref.attempt for ref in run.refs] == [1, 2]


def test_workflow_task_failing_for_long_writes_no_more_events_and_backs_off() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    length = len(run.history)
    for wait in (0, 1, 2, 4):
        run.advance(wait)
        run.start_task()
        run.fail_task()
    assert len(run.history) == length
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 6


def test_workflow_task_backing_off_is_neither_owed_nor_due_before_its_time() -> None:
    run = RunDriver()
    for _ in range(2):
        run.start_task()
        run.fail_task()
    assert obligations(run.state, run.inflight, run.now) == []
    assert run.wake_time == run.now + timedelta(seconds=1)
    assert run.advance(1) is None
    assert run.refs[-1].attempt == 3


@pytest.mark.parametrize("attempt, wait", [(1, 0), (2, 0), (3, 1), (4, 2), (8, 30), (500, 30)])
def test_task_retry_interval_doubles_to_half_a_minute(attempt: int, wait: int) -> None:
    assert task_retry_interval(attempt) == timedelta(seconds=wait)


def test_workflow_task_transient_success_writes_its_events() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    started = run.start_task()
    assert started.scheduled_event is not None
    assert (started.scheduled_event.event_id, started.started_event.event_id) == (5, 6)
    run.complete_task(record_marker())
    assert run.names(4) == [
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "MARKER_RECORDED",
    ]
    assert run.history[4].workflow_task_scheduled_event_attributes.attempt == 2
    assert run.history[4:6] == [started.scheduled_event, started.started_event]


def test_workflow_task_transient_and_new_event_becomes_first_attempt() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.signal()
    assert run.names(2) == ["WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 1


def test_workflow_task_failed_with_buffered_events_becomes_first_attempt() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.start_task()
    run.signal()
    run.fail_task()
    assert run.names(2) == ["WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.buffered_events == []
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 1


def test_workflow_task_timed_out_is_tried_again() -> None:
    run = RunDriver(workflow_task_timeout=seconds(3))
    run.start_task()
    assert run.advance(2.9) is None
    run.advance(0.1)
    assert run.names(2) == ["WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_TIMED_OUT"]
    timed_out = run.last_event("WORKFLOW_TASK_TIMED_OUT").workflow_task_timed_out_event_attributes
    assert timed_out.timeout_type == failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 2
    assert run.inflight.workflow_task is None


def test_workflow_task_timeout_default_is_ten_seconds() -> None:
    run = RunDriver()
    assert run.start_task().deadline_at == run.at + 10


def test_workflow_task_times_out_together_with_timer_becomes_first_attempt() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 10), force_create_new_workflow_task=True)
    run.start_task()
    run.advance(10)
    assert run.names(3) == ["WORKFLOW_TASK_TIMED_OUT", "TIMER_FIRED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 1


def test_workflow_task_failure_clears_stickiness() -> None:
    run = RunDriver()
    run.run_task(force_create_new_workflow_task=True)
    run.inflight.sticky = Sticky("worker-1-sticky", timedelta(seconds=10))
    run.start_task()
    run.signal()
    run.fail_task()
    assert run.inflight.sticky is None


def test_workflow_task_completion_keeps_stickiness() -> None:
    run = RunDriver()
    run.inflight.sticky = Sticky("worker-1-sticky", timedelta(seconds=10))
    run.run_task(force_create_new_workflow_task=True)
    assert run.refs[-1].sticky_task_queue == "worker-1-sticky"
    assert run.refs[-1].sticky_timeout.ToSeconds() == 10


def test_workflow_task_tried_again_may_go_to_any_worker() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.inflight.sticky = Sticky("worker-1-sticky", timedelta(seconds=10))
    [ref] = run.owed_tasks()
    assert ref.sticky_task_queue == ""
    assert not ref.HasField("sticky_timeout")


def test_workflow_task_forced_anew_is_scheduled() -> None:
    run = RunDriver()
    run.run_task(force_create_new_workflow_task=True)
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]
    assert len(run.refs) == 2


def test_workflow_task_without_commands_schedules_no_other() -> None:
    run = RunDriver()
    run.run_task()
    assert run.state.workflow_task is None


def test_workflow_task_lost_with_its_host_is_offered_again_and_void() -> None:
    run = RunDriver()
    start_id = run.start_task().start_id
    run.lose_host()
    assert len(obligations(run.state, run.inflight, run.now)) == 1
    with pytest.raises(TaskNotFoundError):
        run.complete_task(start_id=start_id)
    run.start_task()
    run.complete_task(complete_workflow())
    assert not run.state.is_open


def test_workflow_task_lost_with_buffered_events_shows_them() -> None:
    run = RunDriver()
    run.start_task()
    run.signal()
    assert len(run.state.buffered_events) == 1
    run.lose_host()
    assert run.names(1) == ["WORKFLOW_EXECUTION_SIGNALED"]
    assert run.state.buffered_events == []
    run.start_task()
    assert run.inflight.workflow_task is not None
    assert run.inflight.workflow_task.started_event.event_id == 4


def test_workflow_task_lost_transient_with_buffered_events_becomes_first_attempt() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.start_task()
    run.signal()
    run.lose_host()
    assert run.names(2) == ["WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 1


def test_flush_without_buffered_events_is_nothing() -> None:
    run = RunDriver()
    assert decide_flush(run.state, run.inflight, run.now) is None


def test_flush_while_a_worker_has_the_task_is_nothing() -> None:
    run = RunDriver()
    run.start_task()
    run.signal()
    assert decide_flush(run.state, run.inflight, run.now) is None


def test_event_after_lost_task_comes_behind_what_was_buffered() -> None:
    run = RunDriver()
    run.start_task()
    run.signal("first")
    run.inflight.workflow_task = None
    run.signal("second")
    assert [
        event.workflow_execution_signaled_event_attributes.request_id for event in run.history[-2:]
    ] == ["first", "second"]
    assert run.state.buffered_events == []


@pytest.mark.parametrize("events, suggests", [(3, True), (4, False)])
def test_workflow_task_of_long_history_suggests_continue_as_new(
    events: int, suggests: bool
) -> None:
    run = RunDriver(RunLimits(suggest_continue_events=events))
    run.signal()
    attributes = run.start_task().started_event.workflow_task_started_event_attributes
    assert attributes.suggest_continue_as_new is suggests


def test_workflow_task_of_large_history_suggests_continue_as_new() -> None:
    run = RunDriver(RunLimits(suggest_continue_bytes=10))
    attributes = run.start_task(WORKER).started_event.workflow_task_started_event_attributes
    assert attributes.suggest_continue_as_new
    assert attributes.history_bytes == run.state.history_bytes


def _beat_for(run: RunDriver, total: float) -> list[Decision]:
    """Signs of life every 9 s until then."""
    decisions: list[Decision] = []
    end = run.at + total
    while run.at < end:
        run.start_task()
        run.advance(9)
        decisions.append(run.complete_task(force_create_new_workflow_task=True))
    return decisions


def test_workflow_task_kept_by_signs_of_life_alone_times_out_after_half_an_hour() -> None:
    run = RunDriver()
    decisions = _beat_for(run, 30 * 60 - 9)
    assert not any(decision.is_overdue for decision in decisions)
    run.start_task()
    run.advance(9)
    assert run.complete_task(force_create_new_workflow_task=True).is_overdue
    assert run.names(1) == ["WORKFLOW_TASK_TIMED_OUT"]
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 2
    assert run.inflight.sticky is None


def test_decision_begins_the_half_hour_anew() -> None:
    run = RunDriver()
    _beat_for(run, 29 * 60)
    run.run_task(record_marker(), force_create_new_workflow_task=True)
    assert not any(decision.is_overdue for decision in _beat_for(run, 29 * 60))


def test_failure_begins_the_half_hour_anew() -> None:
    run = RunDriver()
    _beat_for(run, 29 * 60)
    run.start_task()
    run.fail_task()
    assert run.inflight.heartbeat_since is None


def test_worker_is_told_that_its_signs_of_life_are_too_many() -> None:
    run = RunDriver(RunLimits(max_heartbeat=timedelta(seconds=9)))
    run.start_task()
    run.advance(9)
    decision = run.complete_task(force_create_new_workflow_task=True)
    assert decision.is_overdue
    assert decision.refused is None
    assert run.fold() == run.state
