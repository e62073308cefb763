from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1 import failure_pb2, workflow_pb2
from aetheris_server.history.state.machines.activity.starting import is_startable
from aetheris_server.history.state.machines.activity.values import expiration_time
from aetheris_server.history.state.obligations import obligations
from tests.support.runs import (
    RunDriver,
    application_failure,
    payloads,
    schedule_activity,
    seconds,
)

_AT_MOST_ONCE = workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE


def _run(**attributes: Any) -> RunDriver:
    run = RunDriver()
    run.run_task(schedule_activity("a", **attributes))
    return run


def _timeout(run: RunDriver) -> failure_pb2.TimeoutFailureInfo:
    event = run.last_event("ACTIVITY_TASK_TIMED_OUT")
    return event.activity_task_timed_out_event_attributes.failure.timeout_failure_info


def _retry_state(run: RunDriver) -> failure_pb2.RetryState.ValueType:
    event = run.last_event("ACTIVITY_TASK_TIMED_OUT")
    return event.activity_task_timed_out_event_attributes.retry_state


def test_activity_start_to_close_timeout_is_tried_again() -> None:
    run = _run(start_to_close_timeout=seconds(5))
    run.start_activity()
    assert run.advance(4.9) is None
    run.advance(0.1)
    [attempt] = run.activity().attempts
    info = attempt.failure.timeout_failure_info
    assert info.timeout_type == failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
    assert not info.outcome_unknown
    assert run.activity().attempt == 2


def test_activity_start_to_close_timeout_of_last_attempt_closes() -> None:
    run = _run(start_to_close_timeout=seconds(5), retry_policy={"maximum_attempts": 1})
    run.start_activity()
    run.advance(5)
    assert _timeout(run).timeout_type == failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
    assert _retry_state(run) == failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]


def test_activity_timeout_named_non_retryable_closes() -> None:
    run = _run(
        start_to_close_timeout=seconds(5),
        retry_policy={"non_retryable_error_types": ["AetherisTimeout:START_TO_CLOSE"]},
    )
    run.start_activity()
    run.advance(5)
    assert _retry_state(run) == failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE


def test_activity_heartbeat_timeout_is_tried_again_with_its_details() -> None:
    run = _run(heartbeat_timeout=seconds(2), start_to_close_timeout=seconds(60))
    run.start_activity()
    run.advance(1.5)
    run.heartbeat(details="half")
    run.advance(1.5)
    assert run.activity().attempt == 1
    run.advance(0.5)
    [attempt] = run.activity().attempts
    info = attempt.failure.timeout_failure_info
    assert info.timeout_type == failure_pb2.TIMEOUT_TYPE_HEARTBEAT
    assert info.last_heartbeat_details == payloads("half")
    assert run.activity().heartbeat_details == payloads("half")


def test_activity_heartbeat_without_details_writes_nothing() -> None:
    run = _run(heartbeat_timeout=seconds(2), start_to_close_timeout=seconds(60))
    run.start_activity()
    records = len(run.records)
    run.advance(1.5)
    run.heartbeat()
    assert run.advance(1.5) is None
    assert len(run.records) == records


def test_activity_schedule_to_start_timeout_closes() -> None:
    run = _run(schedule_to_start_timeout=seconds(3), start_to_close_timeout=seconds(60))
    assert run.wake_time == run.now + timedelta(seconds=3)
    run.advance(3)
    assert _timeout(run).timeout_type == failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START
    assert _retry_state(run) == failure_pb2.RETRY_STATE_TIMEOUT
    event = run.last_event("ACTIVITY_TASK_TIMED_OUT")
    assert event.activity_task_timed_out_event_attributes.started_event_id == 0
    assert "ACTIVITY_TASK_STARTED" not in run.names()


def test_activity_started_in_time_has_no_schedule_to_start_timeout() -> None:
    run = _run(schedule_to_start_timeout=seconds(3), start_to_close_timeout=seconds(60))
    run.start_activity()
    assert run.advance(30) is None


def test_activity_whose_start_was_lost_waits_anew_for_a_worker() -> None:
    run = _run(schedule_to_start_timeout=seconds(3), start_to_close_timeout=seconds(60))
    run.start_activity()
    run.advance(30)
    run.lose_host()
    assert run.activity().attempt == 1
    assert run.advance(2.9) is None
    run.advance(0.1)
    assert _timeout(run).timeout_type == failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START


def test_activity_schedule_to_start_of_second_attempt_counts_from_its_own_time() -> None:
    run = _run(schedule_to_start_timeout=seconds(3), start_to_close_timeout=seconds(60))
    run.start_activity()
    run.advance(10)
    run.fail_activity()
    assert run.advance(3.9) is None
    run.advance(0.1)
    assert _timeout(run).timeout_type == failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START
    event = run.last_event("ACTIVITY_TASK_TIMED_OUT")
    cause = event.activity_task_timed_out_event_attributes.failure.cause
    assert cause == application_failure()


@pytest.mark.parametrize("is_started", [True, False])
def test_activity_schedule_to_close_timeout_closes(is_started: bool) -> None:
    run = _run(schedule_to_close_timeout=seconds(20))
    if is_started:
        run.start_activity()
    run.advance(20)
    assert _timeout(run).timeout_type == failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
    assert _retry_state(run) == failure_pb2.RETRY_STATE_TIMEOUT
    assert ("ACTIVITY_TASK_STARTED" in run.names()) is is_started


def test_activity_timeout_without_time_for_another_attempt_is_schedule_to_close() -> None:
    run = _run(start_to_close_timeout=seconds(9.5), schedule_to_close_timeout=seconds(10))
    run.start_activity()
    run.heartbeat(details="half")
    run.advance(9.5)
    event = run.last_event("ACTIVITY_TASK_TIMED_OUT").activity_task_timed_out_event_attributes
    assert event.retry_state == failure_pb2.RETRY_STATE_TIMEOUT
    info = event.failure.timeout_failure_info
    assert info.timeout_type == failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE
    assert info.last_heartbeat_details == payloads("half")
    inner = event.failure.cause.timeout_failure_info
    assert inner.timeout_type == failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE


def test_at_most_once_start_is_on_disk_before_the_worker_has_it() -> None:
    run = _run(delivery=_AT_MOST_ONCE)
    run.start_activity()
    fact = run.records[-1].facts[0].activity_attempt_started
    assert (fact.scheduled_event_id, fact.attempt, fact.identity) == (5, 1, "worker")
    assert run.activity().started_identity == "worker"


def test_at_most_once_start_survives_its_host_and_is_not_offered_again() -> None:
    run = _run(delivery=_AT_MOST_ONCE)
    run.start_activity()
    run.lose_host()
    assert obligations(run.state, run.inflight, run.now) == []
    assert not is_startable(run.state, run.inflight, 5, 1, run.now)
    assert 5 in run.inflight.activities
    run.complete_activity()
    assert run.state.activities == {}


def test_at_most_once_start_is_never_repeated_even_without_its_memory() -> None:
    run = _run(delivery=_AT_MOST_ONCE)
    run.start_activity()
    run.inflight.activities.clear()
    assert obligations(run.state, run.inflight, run.now) == []
    assert not is_startable(run.state, run.inflight, 5, 1, run.now)


@pytest.mark.parametrize(
    "attributes, kind",
    [
        ({"start_to_close_timeout": seconds(5)}, failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE),
        (
            {"start_to_close_timeout": seconds(60), "heartbeat_timeout": seconds(5)},
            failure_pb2.TIMEOUT_TYPE_HEARTBEAT,
        ),
        ({"schedule_to_close_timeout": seconds(5)}, failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE),
    ],
)
@pytest.mark.parametrize("loses_host", [True, False])
def test_at_most_once_lost_attempt_ends_as_outcome_unknown(
    attributes: dict[str, Any], kind: failure_pb2.TimeoutType.ValueType, loses_host: bool
) -> None:
    run = _run(delivery=_AT_MOST_ONCE, **attributes)
    run.start_activity()
    if loses_host:
        run.lose_host()
    run.advance(5)
    assert _timeout(run).timeout_type == kind
    assert _timeout(run).outcome_unknown
    assert _retry_state(run) == failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE
    assert run.state.activities == {}


@pytest.mark.parametrize("loses_host", [True, False])
def test_at_most_once_start_that_certainly_did_not_come_is_offered_again(loses_host: bool) -> None:
    run = _run(delivery=_AT_MOST_ONCE)
    run.start_activity()
    if loses_host:
        run.lose_host()
    run.lose_activity()
    assert [(ref.scheduled_event_id, ref.attempt) for ref in run.refs[-1:]] == [(5, 1)]
    assert obligations(run.fold(), run.inflight, run.now) == run.refs[-1:]
    run.start_activity()
    run.complete_activity()
    assert run.state.activities == {}


def test_at_most_once_start_that_did_not_come_waits_for_a_worker_no_longer_than_before() -> None:
    run = _run(delivery=_AT_MOST_ONCE, schedule_to_start_timeout=seconds(5))
    run.start_activity()
    run.advance(4)
    run.lose_activity()
    run.advance(1)
    assert _timeout(run).timeout_type == failure_pb2.TIMEOUT_TYPE_SCHEDULE_TO_START
    assert not _timeout(run).outcome_unknown


def test_at_most_once_that_nobody_had_times_out_with_known_outcome() -> None:
    run = _run(delivery=_AT_MOST_ONCE, schedule_to_close_timeout=seconds(5))
    run.advance(5)
    assert not _timeout(run).outcome_unknown


def test_at_most_once_reported_failure_is_tried_again() -> None:
    run = _run(delivery=_AT_MOST_ONCE)
    run.start_activity()
    run.fail_activity()
    assert run.activity().started_time is None
    run.advance(1)
    run.start_activity()
    assert run.records[-1].facts[0].activity_attempt_started.attempt == 2


@pytest.mark.parametrize(
    "given, expected",
    [
        ({"start_to_close_timeout": 5}, {"start_to_close": 5, "schedule_to_close": 100}),
        ({"start_to_close_timeout": 500}, {"start_to_close": 100, "schedule_to_close": 100}),
        ({"schedule_to_close_timeout": 50}, {"start_to_close": 50, "schedule_to_close": 50}),
        (
            {"schedule_to_close_timeout": 50, "start_to_close_timeout": 80},
            {"start_to_close": 50, "schedule_to_close": 50},
        ),
        (
            {"schedule_to_close_timeout": 50, "schedule_to_start_timeout": 70},
            {"schedule_to_start": 50},
        ),
        ({"start_to_close_timeout": 5, "heartbeat_timeout": 9}, {"heartbeat": 5}),
    ],
)
def test_activity_timeouts_are_derived_and_capped(
    given: dict[str, float], expected: dict[str, float]
) -> None:
    run = RunDriver(workflow_run_timeout=seconds(100))
    timeouts: dict[str, Any] = {name: seconds(value) for name, value in given.items()}
    run.run_task(schedule_activity("a", **timeouts))
    scheduled = run.activity().scheduled
    assert {
        name: getattr(scheduled, f"{name}_timeout").ToSeconds() for name in expected
    } == expected


def test_activity_without_run_timeout_never_expires() -> None:
    run = _run(start_to_close_timeout=seconds(5))
    scheduled = run.activity().scheduled
    assert not scheduled.HasField("schedule_to_close_timeout")
    assert not scheduled.HasField("schedule_to_start_timeout")
    assert expiration_time(run.activity()) is None
