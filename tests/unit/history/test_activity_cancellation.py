import pytest

from aetheris.api.v1 import failure_pb2, history_pb2, workflow_pb2
from aetheris_server.errors import InvalidArgumentError
from tests.support.runs import (
    RunDriver,
    cancel_activity,
    complete_workflow,
    payloads,
    record_marker,
    schedule_activity,
    seconds,
)


def _run() -> RunDriver:
    run = RunDriver()
    run.run_task(schedule_activity("a"), force_create_new_workflow_task=True)
    return run


def test_cancel_of_unstarted_activity_closes_it_behind_the_commands() -> None:
    run = _run()
    decision = run.run_task(cancel_activity(5), record_marker())
    assert run.names(4) == [
        "ACTIVITY_TASK_CANCEL_REQUESTED",
        "MARKER_RECORDED",
        "ACTIVITY_TASK_CANCELLED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    attributes = run.last_event("ACTIVITY_TASK_CANCELLED").activity_task_cancelled_event_attributes
    requested = run.last_event("ACTIVITY_TASK_CANCEL_REQUESTED")
    assert attributes.latest_cancel_requested_event_id == requested.event_id
    assert (attributes.scheduled_event_id, attributes.started_event_id) == (5, 0)
    assert decision.cancelled_event_ids == []
    assert run.state.activities == {}


def test_cancel_of_started_activity_waits_for_its_worker() -> None:
    run = _run()
    run.start_activity()
    decision = run.run_task(cancel_activity(5))
    assert decision.cancelled_event_ids == [5]
    assert run.names(1) == ["ACTIVITY_TASK_CANCEL_REQUESTED"]
    assert run.activity().cancel_requested_event_id == run.history[-1].event_id
    run.cancel_activity()
    assert run.names(3) == [
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_CANCELLED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    attributes = run.last_event("ACTIVITY_TASK_CANCELLED").activity_task_cancelled_event_attributes
    assert attributes.details == payloads("stopped")
    assert attributes.started_event_id == run.last_event("ACTIVITY_TASK_STARTED").event_id


def test_cancel_of_backing_off_activity_closes_it() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity()
    run.run_task(cancel_activity(5))
    assert run.names(2) == ["ACTIVITY_TASK_CANCELLED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.activities == {}


def test_cancelled_activity_may_complete_all_the_same() -> None:
    run = _run()
    run.start_activity()
    run.run_task(cancel_activity(5))
    run.complete_activity()
    assert "ACTIVITY_TASK_COMPLETED" in run.names(2)


def test_cancelled_activity_that_fails_is_not_tried_again() -> None:
    run = _run()
    run.start_activity()
    run.run_task(cancel_activity(5))
    run.fail_activity()
    attributes = run.last_event("ACTIVITY_TASK_FAILED").activity_task_failed_event_attributes
    assert attributes.retry_state == failure_pb2.RETRY_STATE_CANCEL_REQUESTED


def test_cancelled_activity_that_times_out_is_not_tried_again() -> None:
    run = _run()
    run.start_activity()
    run.run_task(cancel_activity(5))
    run.advance(10)
    event = run.last_event("ACTIVITY_TASK_TIMED_OUT").activity_task_timed_out_event_attributes
    assert event.retry_state == failure_pb2.RETRY_STATE_CANCEL_REQUESTED


def test_cancelled_answer_that_nobody_asked_for_is_refused() -> None:
    run = _run()
    run.start_activity()
    with pytest.raises(InvalidArgumentError):
        run.cancel_activity()


def test_second_cancel_of_an_activity_writes_nothing() -> None:
    run = _run()
    run.start_activity()
    run.run_task(cancel_activity(5), force_create_new_workflow_task=True)
    decision = run.run_task(cancel_activity(5))
    assert decision.refused is None
    assert decision.cancelled_event_ids == []
    assert run.names(1) == ["WORKFLOW_TASK_COMPLETED"]


@pytest.mark.parametrize("is_started", [True, False])
def test_activity_cancelled_twice_in_one_decision_is_asked_once(is_started: bool) -> None:
    run = _run()
    if is_started:
        run.start_activity()
    run.run_task(cancel_activity(5), cancel_activity(5))
    assert run.names().count("ACTIVITY_TASK_CANCEL_REQUESTED") == 1
    assert run.names().count("ACTIVITY_TASK_CANCELLED") == (0 if is_started else 1)


def test_cancel_of_activity_that_completed_meanwhile_is_accepted() -> None:
    run = _run()
    run.start_activity()
    run.start_task()
    run.complete_activity()
    assert run.complete_task(cancel_activity(5), cancel_activity(5)).refused is None
    assert run.names(5) == [
        "WORKFLOW_TASK_COMPLETED",
        "ACTIVITY_TASK_CANCEL_REQUESTED",
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
    ]


def test_cancel_of_activity_that_timed_out_unstarted_meanwhile_is_accepted() -> None:
    run = RunDriver()
    run.run_task(
        schedule_activity("a", schedule_to_close_timeout=seconds(3)),
        force_create_new_workflow_task=True,
    )
    run.start_task()
    run.advance(3)
    assert run.complete_task(cancel_activity(5)).refused is None
    assert run.names(3) == [
        "ACTIVITY_TASK_CANCEL_REQUESTED",
        "ACTIVITY_TASK_TIMED_OUT",
        "WORKFLOW_TASK_SCHEDULED",
    ]


@pytest.mark.parametrize("scheduled_event_id", [0, 2, 99])
def test_cancel_of_what_is_no_activity_is_refused(scheduled_event_id: int) -> None:
    run = _run()
    refused = run.run_task(cancel_activity(scheduled_event_id)).refused
    assert refused is not None
    assert refused.cause == (
        history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_REQUEST_CANCEL_ACTIVITY_ATTRIBUTES
    )


def test_cancel_of_activity_whose_end_the_code_has_seen_is_refused() -> None:
    run = _run()
    run.start_activity()
    run.complete_activity()
    assert run.run_task(cancel_activity(5)).refused is not None


def test_cancel_of_unstarted_activity_and_close_in_one_decision_closes_the_run() -> None:
    run = _run()
    run.run_task(cancel_activity(5), complete_workflow())
    assert run.names(2) == ["ACTIVITY_TASK_CANCEL_REQUESTED", "WORKFLOW_EXECUTION_COMPLETED"]


def test_cancel_of_at_most_once_activity_of_lost_host_waits_for_its_worker() -> None:
    run = RunDriver()
    run.run_task(
        schedule_activity("a", delivery=workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE),
        force_create_new_workflow_task=True,
    )
    run.start_activity()
    run.lose_host()
    assert run.run_task(cancel_activity(5)).cancelled_event_ids == [5]
    assert run.activity().cancel_requested_event_id
