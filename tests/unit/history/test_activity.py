from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1 import common_pb2, failure_pb2
from aetheris_server.errors import TaskNotFoundError
from aetheris_server.history.state.inflight import TaskTaker
from aetheris_server.history.state.machines.activity.answers import require_attempt
from aetheris_server.history.state.machines.activity.starting import is_startable
from aetheris_server.history.state.obligations import obligations
from tests.support.runs import (
    RunDriver,
    application_failure,
    payloads,
    schedule_activity,
    seconds,
    start_timer,
)


def _run(**attributes: Any) -> RunDriver:
    run = RunDriver()
    run.run_task(schedule_activity("a", **attributes))
    return run


def test_activity_scheduled_is_offered() -> None:
    run = _run(capabilities=["llm", "gpu"], start_to_close_timeout=seconds(1))
    ref = run.refs[-1]
    assert (ref.scheduled_event_id, ref.attempt) == (5, 1)
    assert list(ref.capabilities) == ["gpu", "llm"]


def test_activity_start_writes_nothing() -> None:
    run = _run()
    run.start_activity()
    assert len(run.records) == 2
    assert obligations(run.state, run.inflight, run.now) == []


def test_activity_completed_writes_started_right_before() -> None:
    run = _run()
    started = run.start_activity()
    run.now += timedelta(seconds=2)
    run.complete_activity()
    assert run.names(3) == [
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    attributes = run.last_event("ACTIVITY_TASK_STARTED").activity_task_started_event_attributes
    assert attributes.attempt == 1
    assert attributes.worker_version == "build-1"
    assert attributes.started_time.ToDatetime(started.started_time.tzinfo) == started.started_time
    done = run.last_event("ACTIVITY_TASK_COMPLETED").activity_task_completed_event_attributes
    assert (done.scheduled_event_id, done.started_event_id) == (5, 6)
    assert done.result == payloads("42")
    assert run.state.activities == {}
    assert run.state.activity_ids == {}


def test_activity_second_completion_is_not_found() -> None:
    run = _run()
    run.start_activity()
    run.complete_activity()
    with pytest.raises(TaskNotFoundError):
        require_attempt(run.state, 5, 1)


def test_activity_completion_of_closed_run_is_not_found() -> None:
    run = _run()
    run.start_activity()
    run.terminate()
    with pytest.raises(TaskNotFoundError):
        require_attempt(run.state, 5, 1)


def test_activity_other_attempt_is_not_found() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity()
    with pytest.raises(TaskNotFoundError):
        require_attempt(run.state, 5, 1)
    assert require_attempt(run.state, 5, 2).attempt == 2


def test_activity_completed_after_the_host_that_gave_it_out_was_lost_counts() -> None:
    run = _run()
    run.start_activity()
    run.lose_host()
    run.start_activity(taker=TaskTaker("other", worker_version="build-2"))
    run.complete_activity()
    started = run.last_event("ACTIVITY_TASK_STARTED").activity_task_started_event_attributes
    assert (started.identity, started.worker_version) == ("worker", "")


def test_activity_failed_is_tried_again_without_events() -> None:
    run = _run()
    run.start_activity()
    run.now += timedelta(seconds=1)
    length = len(run.history)
    run.fail_activity(details=payloads("half"))
    assert len(run.history) == length
    activity = run.activity()
    assert activity.attempt == 2
    assert activity.attempt_scheduled_time == run.now + timedelta(seconds=1)
    assert activity.heartbeat_details == payloads("half")
    assert activity.last_failure == application_failure()
    [attempt] = activity.attempts
    assert (attempt.attempt, attempt.identity) == (1, "worker")
    assert attempt.end_time.ToSeconds() - attempt.start_time.ToSeconds() == 1
    assert run.inflight.activities == {}


def test_activity_backing_off_is_offered_when_its_time_comes() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity()
    assert obligations(run.state, run.inflight, run.now) == []
    assert run.wake_time == run.now + timedelta(seconds=1)
    assert run.advance(1) is None
    assert (run.refs[-1].scheduled_event_id, run.refs[-1].attempt) == (5, 2)
    run.now -= timedelta(milliseconds=5)
    run.start_activity()


def test_activity_backing_off_is_not_startable() -> None:
    run = _run(retry_policy={"initial_interval": seconds(3600)})
    run.start_activity()
    run.fail_activity()
    assert not is_startable(run.state, run.inflight, 5, 2, run.now)
    assert not is_startable(run.state, run.inflight, 5, 1, run.now)


def test_activity_out_of_attempts_fails() -> None:
    run = _run(retry_policy={"maximum_attempts": 2})
    run.start_activity()
    run.fail_activity()
    run.advance(1)
    run.start_activity()
    run.fail_activity(failure=application_failure("Second"))
    attributes = run.last_event("ACTIVITY_TASK_FAILED").activity_task_failed_event_attributes
    assert attributes.retry_state == failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert attributes.failure == application_failure("Second")
    started = run.last_event("ACTIVITY_TASK_STARTED").activity_task_started_event_attributes
    assert started.attempt == 2
    assert started.last_failure == application_failure()


def test_activity_non_retryable_failure_fails_at_once() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity(failure=application_failure(non_retryable=True))
    attributes = run.last_event("ACTIVITY_TASK_FAILED").activity_task_failed_event_attributes
    assert attributes.retry_state == failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE


def test_activity_retry_that_does_not_fit_fails_with_timeout_state() -> None:
    run = _run(schedule_to_close_timeout=seconds(1))
    run.start_activity()
    run.fail_activity()
    attributes = run.last_event("ACTIVITY_TASK_FAILED").activity_task_failed_event_attributes
    assert attributes.retry_state == failure_pb2.RETRY_STATE_TIMEOUT


def test_activity_next_retry_delay_overrides_the_policy() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity(failure=application_failure(next_retry_delay=seconds(500)))
    assert run.activity().attempt_scheduled_time == run.now + timedelta(seconds=500)


def test_activity_failures_in_the_state_are_bounded_in_number_and_size() -> None:
    run = _run(retry_policy={"backoff_coefficient": 1, "initial_interval": seconds(1)})
    failure = application_failure(details=payloads("x" * 10_000))
    failure.stack_trace = "ä" * 10_000
    for _ in range(105):
        run.start_activity()
        run.fail_activity(failure=failure)
        run.advance(1)
    attempts = run.activity().attempts
    assert [attempt.attempt for attempt in attempts] == list(range(6, 106))
    assert all(attempt.failure.ByteSize() <= 4096 for attempt in attempts)
    assert attempts[0].failure.application_failure_info.type == "Oops"
    assert run.records[-1].facts[0].activity_attempt_failed.failure == failure


def test_activity_results_are_buffered_and_come_behind_signals() -> None:
    run = RunDriver()
    run.run_task(
        schedule_activity("a"),
        schedule_activity("b", schedule_to_start_timeout=seconds(1)),
        start_timer("t", 1),
        force_create_new_workflow_task=True,
    )
    run.start_activity("a")
    run.start_task()
    length = len(run.history)
    run.complete_activity("a")
    run.advance(1)
    run.signal()
    assert len(run.history) == length
    assert list(run.state.activity_ids) == []
    run.complete_task()
    assert run.names(8) == [
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_COMPLETED",
        "TIMER_FIRED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "ACTIVITY_TASK_TIMED_OUT",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    done = run.last_event("ACTIVITY_TASK_COMPLETED").activity_task_completed_event_attributes
    assert done.started_event_id == run.last_event("ACTIVITY_TASK_STARTED").event_id
    timed_out = run.last_event("ACTIVITY_TASK_TIMED_OUT").activity_task_timed_out_event_attributes
    assert timed_out.started_event_id == 0


def test_activity_retry_policy_is_filled_in() -> None:
    policy = _run().activity().scheduled.retry_policy
    assert policy == common_pb2.RetryPolicy(
        initial_interval=seconds(1), backoff_coefficient=2, maximum_interval=seconds(100)
    )
