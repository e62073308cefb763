"""What a new run is made of, that begins as another one did."""

from datetime import datetime, timedelta

import pytest

from aetheris.api.v1 import history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.aggregates.obligation import number_of
from aetheris_server.history.state.deadlines import next_deadline
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.obligations import obligations
from aetheris_server.history.state.reset import new_run as new_run_module
from aetheris_server.history.state.reset.point import PointFinder
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.resets import (
    FORK_KEY,
    NEW_KEY,
    builder_of,
    carried_over,
    fold,
    make_records,
    names,
)
from tests.support.runs import (
    CHILD_ID,
    KEY,
    RunDriver,
    cancel_activity,
    cancel_run,
    close_event,
    complete_workflow,
    payloads,
    ref_ids,
    schedule_activity,
    seconds,
    signal_run,
    start_child,
    start_timer,
)

_AT_MOST_ONCE = workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE
_FIRST = workflow_service_pb2.WORKFLOW_TASK_POINT_FIRST
_LAST = workflow_service_pb2.WORKFLOW_TASK_POINT_LAST
_SIGNAL = workflow_service_pb2.REAPPLY_EXCLUDE_SIGNAL
_CANCEL = workflow_service_pb2.REAPPLY_EXCLUDE_CANCEL_REQUEST


def _busy_run() -> RunDriver:
    """Two tasks completed: the first schedules, the second starts at event 12 and does nothing."""
    run = RunDriver()
    run.signal("before")
    run.run_task(schedule_activity("done"), schedule_activity("open"), start_timer("t", 60))
    run.start_activity("done")
    run.complete_activity("done")
    run.run_task(worker_version="build-1")
    run.signal("after")
    return run


def _owed_tasks(state: RunState, now: datetime) -> list[TaskRef]:
    return [owed for owed in obligations(state, Inflight(), now) if isinstance(owed, TaskRef)]


# The point.


def _find(run: RunDriver, **point: int | str) -> int:
    finder = PointFinder(workflow_service_pb2.ResetPoint(**point))  # type: ignore[arg-type]
    for event in run.history:
        if finder.take(event):
            break
    return finder.find()


@pytest.mark.parametrize("event_id, started", [(4, 4), (5, 4), (12, 12), (13, 12)])
def test_point_by_an_event_of_a_task_is_its_start(event_id: int, started: int) -> None:
    run = _busy_run()
    assert [run.history[event_id - 1].event_id, _find(run, event_id=event_id)] == [
        event_id,
        started,
    ]


@pytest.mark.parametrize("event_id", [1, 2, 3, 6, 8, 14])
def test_point_by_an_event_of_no_started_task_is_refused_by_its_field(event_id: int) -> None:
    with pytest.raises(InvalidArgumentError, match="expected the start or the end") as refused:
        _find(_busy_run(), event_id=event_id)
    assert refused.value.field == "point.event_id"


def test_point_behind_the_history_is_refused_with_its_length() -> None:
    with pytest.raises(InvalidArgumentError, match=r"found 99.*which has 15") as refused:
        _find(_busy_run(), event_id=99)
    assert refused.value.field == "point.event_id"


def test_points_first_and_last_are_completed_tasks() -> None:
    run = _busy_run()
    run.start_task()
    run.fail_task()
    assert (_find(run, workflow_task=_FIRST), _find(run, workflow_task=_LAST)) == (4, 12)


def test_points_first_and_last_are_failed_tasks_where_none_was_completed() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.signal()
    run.start_task()
    run.fail_task()
    assert (_find(run, workflow_task=_FIRST), _find(run, workflow_task=_LAST)) == (3, 7)


def test_point_where_no_task_has_ended_is_refused() -> None:
    run = RunDriver()
    run.start_task()
    with pytest.raises(InvalidArgumentError, match="no workflow task of the run has ended"):
        _find(run, workflow_task=_LAST)


def test_point_by_a_build_is_the_last_task_that_it_completed() -> None:
    run = _busy_run()
    run.run_task(worker_version="build-2")
    assert _find(run, build_id="build-1") == 12
    with pytest.raises(InvalidArgumentError, match="no workflow task was completed") as refused:
        _find(run, build_id="build-3")
    assert refused.value.field == "point.build_id"


# The events.


def test_new_run_has_the_events_up_to_the_point_and_decides_the_task_anew() -> None:
    run = _busy_run()
    records = make_records(run, 12)
    events = [event for record in records for event in record.events]
    assert names(events[12:]) == [
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    assert [event.event_id for event in events] == list(range(1, 16))
    assert events[1:12] == run.history[1:12]
    failed = events[12].workflow_task_failed_event_attributes
    assert failed.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
    assert (failed.base_workflow_id, failed.base_run_id, failed.new_run_id) == (
        KEY.workflow_id,
        KEY.run_id,
        NEW_KEY.run_id,
    )
    assert (failed.scheduled_event_id, failed.started_event_id) == (11, 12)
    assert (failed.identity, failed.failure.message) == ("who", "the run was reset: why")


def test_new_run_is_of_the_same_chain_and_was_asked_for_by_this_request() -> None:
    run = RunDriver(start_delay=seconds(5), workflow_execution_timeout=seconds(100))
    run.advance(5)
    run.run_task()
    run.advance(90)
    (first, *_) = make_records(run, 3)[0].events
    old = run.history[0].workflow_execution_started_event_attributes
    new = first.workflow_execution_started_event_attributes
    assert (new.request_id, new.first_execution_run_id) == ("reset-1", KEY.run_id)
    assert new.original_execution_run_id == KEY.run_id
    assert not new.HasField("first_workflow_task_backoff")
    assert first.event_time == run.history[0].event_time
    expiration = new.workflow_execution_expiration_time.ToDatetime()
    assert expiration > old.workflow_execution_expiration_time.ToDatetime() + timedelta(seconds=80)


def test_new_run_starts_when_it_is_made_and_its_timeouts_count_from_then() -> None:
    run = RunDriver(workflow_run_timeout=seconds(10))
    run.run_task()
    run.advance(20)
    assert not run.state.is_open
    state = fold(make_records(run, 3))
    assert state.is_open
    assert state.start_time == run.now + timedelta(microseconds=1)
    assert next_deadline(state, Inflight(), run.now) == state.start_time + timedelta(seconds=10)


def test_fork_is_of_a_chain_of_its_own() -> None:
    records = make_records(_busy_run(), 12, key=FORK_KEY)
    started = records[0].events[0].workflow_execution_started_event_attributes
    assert (started.workflow_id, started.first_execution_run_id) == ("fork", FORK_KEY.run_id)
    assert started.original_execution_run_id == KEY.run_id
    assert records[-1].events[0].workflow_task_failed_event_attributes.failure.message == (
        "the run was forked: why"
    )


def test_state_at_the_point_is_what_the_base_had_there() -> None:
    run = RunDriver()
    run.signal("before")
    run.run_task(schedule_activity("a"), start_timer("t", 60))
    run.signal("wakes")
    expected = carried_over(run.state)
    run.run_task(cancel_activity(6))
    assert carried_over(fold(make_records(run, 10)[:-1])) == expected


def test_open_timers_keep_their_time_and_activities_are_scheduled_anew() -> None:
    run = _busy_run()
    fire_time = run.state.timers["t"].fire_time
    run.advance(1000)
    state = fold(make_records(run, 12))
    assert state.timers["t"].fire_time == fire_time
    activity = state.activities[state.activity_ids["open"]]
    assert (activity.attempt, activity.attempts) == (1, [])
    assert activity.scheduled_time == activity.attempt_scheduled_time == state.start_time


def test_attempts_of_the_base_do_not_count() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"))
    for _ in range(3):
        run.advance(100)
        run.start_activity("a")
        run.fail_activity("a")
    run.signal()
    run.run_task()
    state = fold(make_records(run, 7))
    assert (run.activity("a").attempt, state.activities[5].attempt) == (4, 1)
    owed = _owed_tasks(state, run.now + timedelta(seconds=1))
    assert {(event_id, attempt) for _, event_id, attempt in ref_ids(owed)} == {(5, 1), (9, 1)}


def test_new_run_is_owed_its_task_and_its_activities_once() -> None:
    state = fold(make_records(_busy_run(), 12))
    owed = _owed_tasks(state, state.start_time)
    assert sorted(ref.scheduled_event_id for ref in owed) == [7, 15]


def test_snapshot_of_a_new_run_comes_back_whole() -> None:
    state = fold(make_records(_busy_run(), 12))
    again = from_snapshot(NEW_KEY, state.run_seq, state.hash, to_snapshot(state))
    assert to_snapshot(again) == to_snapshot(state)
    assert again.parts == state.parts
    assert again.held_bytes == state.held_bytes


def test_long_history_is_several_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(new_run_module, "_RECORD_BYTES", 200)
    run = _busy_run()
    records = make_records(run, 12)
    assert len(records) > 3
    one = fold(make_records(_busy_run(), 12))
    several = fold(records)
    assert carried_over(several) == carried_over(one)
    assert several.next_event_id == one.next_event_id


def test_history_that_is_too_large_is_refused_by_its_field(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(new_run_module, "MAX_PREFIX_BYTES", 300)
    with pytest.raises(InvalidArgumentError, match="takes more than 300 bytes") as refused:
        make_records(_busy_run(), 12)
    assert refused.value.field == "point"


# What comes again.


def _later(run: RunDriver, point: int, *excluded: int, **options: object) -> list[str]:
    events = make_records(run, point, *excluded, **options)[-1].events
    return names(events[1:-1])


def test_signals_and_a_cancel_request_come_again_in_their_order() -> None:
    run = RunDriver()
    run.signal("s1")
    run.run_task()
    run.signal("s2")
    run.request_cancel()
    run.signal("s3")
    run.run_task()
    last = make_records(run, 4)[-1]
    assert names(last.events)[1:-1] == [
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_CANCEL_REQUESTED",
        "WORKFLOW_EXECUTION_SIGNALED",
    ]
    assert [
        event.workflow_execution_signaled_event_attributes.request_id
        for event in (last.events[1], last.events[3])
    ] == ["s2", "s3"]
    assert last.events[1].event_time == last.time


@pytest.mark.parametrize(
    "excluded, left",
    [
        ((_SIGNAL,), ["WORKFLOW_EXECUTION_CANCEL_REQUESTED"]),
        ((_CANCEL,), ["WORKFLOW_EXECUTION_SIGNALED"]),
        ((_SIGNAL, _CANCEL), []),
    ],
)
def test_what_is_excluded_does_not_come_again(excluded: tuple[int, ...], left: list[str]) -> None:
    run = RunDriver()
    run.run_task()
    run.signal("s1")
    run.request_cancel()
    assert _later(run, 3, *excluded) == left


def test_signals_that_wait_in_the_buffer_come_again() -> None:
    run = RunDriver()
    run.run_task()
    run.signal("s1")
    run.start_task()
    run.signal("s2")
    assert run.state.buffered_events
    assert _later(run, 3) == ["WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_EXECUTION_SIGNALED"]


def test_signals_of_runs_that_follow_come_again_once_by_their_request_id() -> None:
    run = RunDriver()
    run.signal("s1")
    run.run_task(complete_workflow())
    follower = RunDriver()
    for request_id in ("s1", "s2", "s3"):
        follower.signal(request_id)
    assert _later(run, 4, later=[follower]) == ["WORKFLOW_EXECUTION_SIGNALED"] * 2


def test_request_that_the_base_had_before_the_point_is_known_to_the_new_run() -> None:
    run = _busy_run()
    assert fold(make_records(run, 12)).request_ids == {"before", "after"}


# At-most-once activities.


def _at_most_once() -> RunDriver:
    """One is open when the task that starts at event 8 is decided."""
    run = RunDriver()
    run.run_task(schedule_activity("once", delivery=_AT_MOST_ONCE))
    run.signal()
    return run


def test_at_most_once_activity_that_nobody_had_is_scheduled_anew() -> None:
    run = _at_most_once()
    run.run_task()
    assert _later(run, 7) == []
    assert "once" in fold(make_records(run, 7)).activity_ids


@pytest.mark.parametrize("when", ["before the point", "behind the point"])
def test_at_most_once_activity_that_was_begun_ends_with_its_outcome_unknown(when: str) -> None:
    run = _at_most_once()
    if when == "before the point":
        run.start_activity("once")
        run.run_task()
    else:
        run.run_task()
        run.start_activity("once")
    records = make_records(run, 7)
    assert names(records[-1].events)[1:-1] == ["ACTIVITY_TASK_STARTED", "ACTIVITY_TASK_TIMED_OUT"]
    timed_out = records[-1].events[2].activity_task_timed_out_event_attributes
    assert timed_out.failure.timeout_failure_info.outcome_unknown
    assert (timed_out.scheduled_event_id, timed_out.started_event_id) == (5, 9)
    assert not fold(records).activities


def test_at_most_once_activity_that_came_to_something_comes_to_the_same() -> None:
    run = _at_most_once()
    run.run_task()
    run.start_activity("once")
    run.complete_activity("once", "its result")
    records = make_records(run, 7)
    assert names(records[-1].events)[1:-1] == ["ACTIVITY_TASK_STARTED", "ACTIVITY_TASK_COMPLETED"]
    completed = records[-1].events[2].activity_task_completed_event_attributes
    assert completed.result.payloads[0].data == b"its result"
    assert (completed.scheduled_event_id, completed.started_event_id) == (5, 9)
    assert not fold(records).activities


def test_at_most_once_activity_that_did_not_reach_its_worker_is_scheduled_anew() -> None:
    run = _at_most_once()
    run.start_activity("once")
    run.lose_activity("once")
    run.run_task()
    assert "once" in fold(make_records(run, 7)).activity_ids


def test_at_most_once_activity_that_was_cancelled_since_is_unknown() -> None:
    run = _at_most_once()
    run.start_activity("once")
    run.run_task(cancel_activity(5))
    run.cancel_activity("once")
    assert _later(run, 7) == ["ACTIVITY_TASK_STARTED", "ACTIVITY_TASK_TIMED_OUT"]


def test_builder_takes_what_only_the_open_base_knows() -> None:
    run = _at_most_once()
    run.run_task()
    builder = builder_of(run, 7)
    run.start_activity("once")
    builder.later.take_state(run.state)
    assert names(builder.finish(builder.start_time).events)[1:-1] == [
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_TIMED_OUT",
    ]


# Children, and what was asked of other runs.


def _asks_others() -> RunDriver:
    """A child, a signal and a request to cancel are open when the task that starts at event 9 is
    decided, and have come to nothing yet.
    """
    run = RunDriver()
    run.run_task(start_child("child"), signal_run("hears"), cancel_run("stops"))
    run.signal()
    run.run_task()
    return run


def test_what_the_base_learnt_of_other_runs_the_new_run_learns_too() -> None:
    run = _asks_others()
    child, signal, cancel = run.calls[-3:]
    run.answer(child, run_id=CHILD_ID)
    run.start_task()
    run.answer(signal)
    run.answer(cancel, run_calls_pb2.RUN_CALL_RESULT_NOT_FOUND)
    run.hear_closed(number_of(child), close_event("COMPLETED", result=payloads("done")))
    run.complete_task()
    records = make_records(run, 9, _SIGNAL)
    assert names(records[-1].events)[1:-1] == [
        "CHILD_WORKFLOW_EXECUTION_STARTED",
        "CHILD_WORKFLOW_EXECUTION_COMPLETED",
        "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED",
        "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED",
    ]
    completed = records[-1].events[2].child_workflow_execution_completed_event_attributes
    assert (completed.initiated_event_id, completed.started_event_id) == (5, 11)
    state = fold(records)
    assert not any(isinstance(owed, AggregateCall) for owed in _owed(state))


def test_point_where_a_child_was_open_that_nobody_was_told_of_is_refused() -> None:
    run = _asks_others()
    run.answer(run.calls[-3], run_id=CHILD_ID)
    with pytest.raises(InvalidArgumentError, match="event 5 is of a child") as refused:
        make_records(run, 9)
    assert refused.value.field == "point"


def _owed(state: RunState) -> list[object]:
    return list(obligations(state, Inflight(), state.start_time))
