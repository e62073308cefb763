"""What all machines share: the fold, its snapshot, its hash chain, its arithmetic."""

import dataclasses
import hashlib
from datetime import timedelta

import pytest
from google.protobuf import duration_pb2

from aetheris.api.v1 import failure_pb2, history_pb2, workflow_pb2
from aetheris_server.history.aggregates.records import chain_hash
from aetheris_server.history.state.deadlines import (
    decide_due,
    next_deadline,
    next_inflight_deadline,
)
from aetheris_server.history.state.failures import trim
from aetheris_server.history.state.obligations import take_due_retries
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from aetheris_server.history.times import MAX_DURATION, earliest, from_duration
from tests.support.runs import (
    BEGIN,
    KEY,
    RunDriver,
    application_failure,
    cancel_activity,
    payloads,
    ref_ids,
    schedule_activity,
    seconds,
    start_timer,
)


def _busy_run() -> RunDriver:
    """A run that has some of everything."""
    run = RunDriver(workflow_run_timeout=seconds(1000))
    run.run_task(
        start_timer("t", 50),
        schedule_activity("a", delivery=workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE),
        schedule_activity("b", start_to_close_timeout=seconds(100)),
        schedule_activity("c"),
    )
    run.start_activity("a")
    run.start_activity("b")
    run.heartbeat("b", "half")
    run.start_activity("c")
    run.fail_activity("c")
    run.signal("s1")
    run.start_task()
    run.fail_task()
    run.start_task()
    run.complete_task(
        cancel_activity(run.activity("b").scheduled_event_id),
        force_create_new_workflow_task=True,
        unhandled_signal_count=1,
    )
    run.start_task()
    run.fail_task()
    run.start_task()
    run.signal("s2")
    run.request_cancel()
    return run


def _fields(state: RunState) -> dict[str, object]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def test_unhandled_signals_are_those_of_the_last_completed_task() -> None:
    run = RunDriver()
    run.run_task(unhandled_signal_count=2)
    assert run.state.unhandled_signal_count == 2
    run.signal()
    run.run_task()
    assert run.state.unhandled_signal_count == 0


def test_snapshot_of_busy_run_comes_back_whole() -> None:
    state = _busy_run().state
    for field in dataclasses.fields(state):
        if field.name not in {"first_task_time", "close_event", "parts"}:
            assert getattr(state, field.name), field.name
    loaded = from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state))
    assert _fields(loaded) == _fields(state)


@pytest.mark.parametrize("is_closed", [True, False])
def test_snapshot_of_idle_run_comes_back_whole(is_closed: bool) -> None:
    run = RunDriver(start_delay=seconds(5))
    if is_closed:
        run.terminate()
    state = run.state
    loaded = from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state))
    assert _fields(loaded) == _fields(state)


def test_fold_of_the_log_of_busy_run_is_its_state() -> None:
    run = _busy_run()
    assert _fields(run.fold()) == _fields(run.state)


def test_chain_hash_covers_the_previous_link_the_length_and_the_bytes() -> None:
    previous = b"\x07" * 32
    expected = hashlib.sha256(previous + b"\0\0\0\0\0\0\0\x03" + b"abc").digest()
    assert chain_hash(previous, b"abc") == expected
    assert chain_hash(previous, b"abcd") != expected


def test_obligations_of_lost_host_are_all_that_nobody_may_have() -> None:
    run = _busy_run()
    at_most_once = run.activity("a").scheduled_event_id
    run.lose_host()
    owed = run.owed_tasks()
    assert at_most_once not in {ref.scheduled_event_id for ref in owed}
    assert {ref.scheduled_event_id for ref in owed} == {
        run.activity("b").scheduled_event_id,
        run.history[-1].event_id,
    }


def test_due_retries_are_given_once() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"), schedule_activity("b"))
    for activity_id in ("a", "b"):
        run.start_activity(activity_id)
        run.fail_activity(activity_id)
        run.now += timedelta(seconds=1)
    refs = take_due_retries(run.state, run.inflight, BEGIN + timedelta(seconds=1))
    assert ref_ids(refs) == {(2, run.activity("a").scheduled_event_id, 2)}
    refs = take_due_retries(run.state, run.inflight, run.now)
    assert ref_ids(refs) == {(2, run.activity("b").scheduled_event_id, 2)}
    assert take_due_retries(run.state, run.inflight, run.now) == []


def test_deadlines_that_have_passed_are_not_waited_for_again() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a", start_to_close_timeout=seconds(100)))
    run.start_activity()
    run.fail_activity()
    run.advance(1)
    assert next_deadline(run.state, run.inflight, run.now) is None


def test_deadlines_in_flight_are_those_of_what_workers_have() -> None:
    run = RunDriver()
    run.run_task(
        schedule_activity("a", start_to_close_timeout=seconds(100), heartbeat_timeout=seconds(30)),
        force_create_new_workflow_task=True,
    )
    assert next_inflight_deadline(run.state, run.inflight, run.at) is None
    run.start_activity()
    assert next_inflight_deadline(run.state, run.inflight, run.at) == 30
    run.start_task()
    assert next_inflight_deadline(run.state, run.inflight, run.at) == 10
    assert next_deadline(run.state, run.inflight, run.now) is None


def test_decide_due_before_anything_is_due_is_nothing() -> None:
    run = _busy_run()
    assert decide_due(run.state, run.inflight, run.now, run.at) is None


def test_event_types_all_have_their_attributes_field() -> None:
    fields = {field.name for field in history_pb2.HistoryEvent.DESCRIPTOR.fields}
    run = _busy_run()
    for event in run.history:
        name = history_pb2.EventType.Name(event.event_type).removeprefix("EVENT_TYPE_").lower()
        assert f"{name}_event_attributes" in fields
        assert event.WhichOneof("attributes") == f"{name}_event_attributes"


@pytest.mark.parametrize(
    "duration, expected",
    [
        (duration_pb2.Duration(), timedelta(0)),
        (duration_pb2.Duration(nanos=1), timedelta(microseconds=1)),
        (duration_pb2.Duration(nanos=1000), timedelta(microseconds=1)),
        (duration_pb2.Duration(nanos=1001), timedelta(microseconds=2)),
        (duration_pb2.Duration(seconds=-2, nanos=-5000), timedelta(seconds=-2, microseconds=-5)),
        (duration_pb2.Duration(seconds=2**63 - 1, nanos=999_999_999), MAX_DURATION),
        (duration_pb2.Duration(seconds=-(2**63)), -MAX_DURATION),
    ],
)
def test_from_duration_is_never_short_and_never_beyond_the_calendar(
    duration: duration_pb2.Duration, expected: timedelta
) -> None:
    assert from_duration(duration) == expected


def test_earliest_leaves_out_what_is_not_set() -> None:
    assert earliest(None, BEGIN, BEGIN - timedelta(1)) == BEGIN - timedelta(1)
    assert earliest(None, None) is None


def test_trim_of_small_failure_changes_nothing() -> None:
    failure = application_failure(details=payloads("x"))
    assert trim(failure) == failure


@pytest.mark.parametrize(
    "kind",
    [
        "application_failure_info",
        "timeout_failure_info",
        "server_failure_info",
        "cancelled_failure_info",
        "terminated_failure_info",
    ],
)
def test_trim_of_large_failure_keeps_its_kind_and_the_first_of_its_texts(kind: str) -> None:
    failure = failure_pb2.Failure(message="m" * 5000, stack_trace="ä" * 5000)
    getattr(failure, kind).SetInParent()
    failure.cause.message = "c" * 5000
    trimmed = trim(failure)
    assert trimmed.ByteSize() <= 4096
    assert trimmed.WhichOneof("failure_info") == kind
    assert trimmed.message == "m" * 1024
    assert trimmed.stack_trace == "ä" * 512


def test_trim_of_large_failure_keeps_what_decides_a_retry() -> None:
    failure = failure_pb2.Failure(message="m" * 5000)
    failure.timeout_failure_info.timeout_type = failure_pb2.TIMEOUT_TYPE_HEARTBEAT
    failure.timeout_failure_info.outcome_unknown = True
    assert trim(failure).timeout_failure_info == failure.timeout_failure_info
