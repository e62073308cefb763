"""Why a run waits: what for, since when, until when."""

from datetime import datetime, timedelta

from aetheris.api.v1 import workflow_pb2
from aetheris_server.history.state.waits import wait_reasons
from aetheris_server.history.times import from_timestamp, to_timestamp
from tests.support.runs import (
    QUEUE,
    WORKER,
    RunDriver,
    application_failure,
    complete_workflow,
    schedule_activity,
    seconds,
    start_timer,
)

_PREFIX = "WAIT_KIND_"


def _waits(run: RunDriver) -> list[workflow_pb2.WaitReason]:
    return wait_reasons(run.state, run.inflight, run.now)


def _kinds(run: RunDriver) -> list[str]:
    return [workflow_pb2.WaitKind.Name(reason.kind).removeprefix(_PREFIX) for reason in _waits(run)]


def _only(run: RunDriver, kind: str) -> workflow_pb2.WaitReason:
    (reason,) = _waits(run)
    assert workflow_pb2.WaitKind.Name(reason.kind) == _PREFIX + kind
    return reason


def _since(reason: workflow_pb2.WaitReason) -> datetime:
    return from_timestamp(reason.since_time)


def test_workflow_task_is_waited_for_as_it_stands() -> None:
    run = RunDriver()
    begin = run.now
    reason = _only(run, "WORKFLOW_TASK_NOT_TAKEN")
    assert (reason.task_queue, reason.attempt, _since(reason)) == (QUEUE, 1, begin)
    run.advance(1)
    run.start_task()
    reason = _only(run, "WORKFLOW_TASK_RUNNING")
    assert (reason.identity, _since(reason)) == (WORKER.identity, run.now)
    run.fail_task()
    run.start_task()
    run.fail_task()
    reason = _only(run, "WORKFLOW_TASK_BACKING_OFF")
    assert (reason.attempt, reason.message) == (3, "oops")
    assert from_timestamp(reason.until_time) == run.now + timedelta(seconds=1)
    run.advance(1)
    assert _kinds(run) == ["WORKFLOW_TASK_NOT_TAKEN"]


def test_activity_is_waited_for_as_it_stands() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a", schedule_to_close_timeout=seconds(600)))
    scheduled = run.now
    reason = _only(run, "ACTIVITY_NOT_TAKEN")
    assert (reason.subject, reason.task_queue, _since(reason)) == ("a", QUEUE, scheduled)
    assert from_timestamp(reason.until_time) == scheduled + timedelta(seconds=600)
    run.advance(2)
    run.start_activity()
    reason = _only(run, "ACTIVITY_RUNNING")
    assert (reason.identity, _since(reason)) == (WORKER.identity, run.now)
    run.fail_activity(failure=application_failure(next_retry_delay=seconds(60)))
    reason = _only(run, "ACTIVITY_BACKING_OFF")
    assert (reason.attempt, reason.message) == (2, "oops")
    assert from_timestamp(reason.until_time) == run.now + timedelta(seconds=60)
    run.advance(5)
    run.pause_activity(reason="broken")
    reason = _only(run, "ACTIVITY_PAUSED")
    assert (reason.identity, reason.message, _since(reason)) == ("operator", "broken", run.now)


def test_timer_is_waited_for_until_it_fires() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 60))
    started = run.now
    run.advance(5)
    reason = _only(run, "TIMER")
    assert reason.subject == "t"
    assert from_timestamp(reason.until_time) == started + timedelta(seconds=60)


def test_delayed_start_is_waited_for() -> None:
    run = RunDriver(start_delay=seconds(30))
    reason = _only(run, "START_DELAY")
    assert reason.until_time == to_timestamp(run.now + timedelta(seconds=30))


def test_paused_run_waits_to_be_unpaused_and_for_what_it_waits_else() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 60))
    run.pause(reason="look")
    kinds = _kinds(run)
    assert sorted(kinds) == ["PAUSED", "TIMER"]
    (reason,) = [r for r in _waits(run) if r.kind == workflow_pb2.WAIT_KIND_PAUSED]
    assert (reason.identity, reason.message, _since(reason)) == ("operator", "look", run.now)


def test_run_with_nothing_open_waits_for_a_signal() -> None:
    run = RunDriver()
    run.run_task()
    assert _kinds(run) == ["SIGNAL"]


def test_closed_run_waits_for_nothing() -> None:
    run = RunDriver()
    run.run_task(complete_workflow())
    assert _waits(run) == []
