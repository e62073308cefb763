from datetime import timedelta

import pytest

from aetheris.api.v1 import command_pb2, failure_pb2, history_pb2, workflow_pb2
from aetheris_server.errors import WorkflowClosedError
from aetheris_server.history.state.deadlines import next_deadline, next_inflight_deadline
from aetheris_server.history.state.machines.lifecycle.close import to_result
from aetheris_server.history.state.obligations import obligations, owes
from tests.support.runs import (
    RunDriver,
    application_failure,
    cancel_workflow,
    complete_workflow,
    fail_workflow,
    payloads,
    schedule_activity,
    seconds,
    start_timer,
)


def test_terminate_closes_at_once() -> None:
    run = RunDriver()
    run.terminate()
    assert run.names(1) == ["WORKFLOW_EXECUTION_TERMINATED"]
    attributes = run.history[-1].workflow_execution_terminated_event_attributes
    assert (attributes.reason, attributes.identity) == ("stop", "client")
    assert run.state.close_event == run.history[-1]


def test_terminate_fails_the_task_in_flight_and_keeps_buffered_signals() -> None:
    run = RunDriver()
    run.start_task()
    run.signal()
    run.terminate()
    assert run.names(4) == [
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_TERMINATED",
    ]
    failed = run.last_event("WORKFLOW_TASK_FAILED").workflow_task_failed_event_attributes
    assert failed.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND
    assert run.state.buffered_events == []


def test_terminate_of_transient_task_in_flight_writes_none_of_its_events() -> None:
    run = RunDriver()
    run.start_task()
    run.fail_task()
    run.start_task()
    run.signal()
    run.terminate()
    assert run.names(3) == [
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_TERMINATED",
    ]


def test_terminate_twice_is_refused() -> None:
    run = RunDriver()
    run.terminate()
    with pytest.raises(WorkflowClosedError):
        run.terminate()


def test_closed_run_owes_nothing_and_waits_for_nothing() -> None:
    run = RunDriver(workflow_run_timeout=seconds(100))
    run.run_task(start_timer(), schedule_activity(), force_create_new_workflow_task=True)
    run.start_activity()
    run.start_task()
    run.terminate()
    assert not owes(run.state)
    assert obligations(run.state, run.inflight, run.now) == []
    assert next_deadline(run.state, run.inflight, run.now) is None
    assert next_inflight_deadline(run.state, run.inflight, run.at) is None
    assert run.advance(1000) is None
    assert run.inflight.workflow_task is None
    assert run.inflight.activities == {}


def test_run_timeout_closes_the_run() -> None:
    run = RunDriver(workflow_run_timeout=seconds(100))
    assert run.wake_time == run.now + timedelta(seconds=100)
    run.start_task()
    run.signal()
    run.advance(100)
    assert run.names(3) == [
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_TIMED_OUT",
    ]
    assert run.state.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_TIMED_OUT


def test_run_timeout_comes_before_all_else_that_is_due() -> None:
    run = RunDriver(workflow_run_timeout=seconds(100))
    run.run_task(start_timer("t", 100))
    run.advance(100)
    assert run.names(1) == ["WORKFLOW_EXECUTION_TIMED_OUT"]
    assert "TIMER_FIRED" not in run.names()


@pytest.mark.parametrize(
    "run_timeout, execution_timeout, delay, closes_after",
    [(0, 50, 0, 50), (80, 50, 0, 50), (50, 80, 0, 50), (50, 0, 10, 60), (0, 50, 10, 60)],
)
def test_run_deadline_is_the_first_of_both_timeouts_behind_the_delay(
    run_timeout: float, execution_timeout: float, delay: float, closes_after: float
) -> None:
    run = RunDriver(
        workflow_run_timeout=seconds(run_timeout),
        workflow_execution_timeout=seconds(execution_timeout),
        start_delay=seconds(delay),
    )
    run.advance(closes_after - 0.1)
    assert run.state.is_open
    run.advance(0.1)
    assert run.names(1) == ["WORKFLOW_EXECUTION_TIMED_OUT"]


@pytest.mark.parametrize(
    "command, status",
    [
        (complete_workflow("r"), workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED),
        (fail_workflow(application_failure()), workflow_pb2.WORKFLOW_EXECUTION_STATUS_FAILED),
        (cancel_workflow(), workflow_pb2.WORKFLOW_EXECUTION_STATUS_CANCELLED),
    ],
)
def test_result_of_own_close_has_its_status(
    command: command_pb2.Command, status: workflow_pb2.WorkflowExecutionStatus.ValueType
) -> None:
    run = RunDriver()
    run.run_task(command)
    result = to_result(run.state)
    assert result.status == status == run.state.status
    assert result.close_time == run.history[-1].event_time


def test_result_of_completed_run_has_the_value() -> None:
    run = RunDriver()
    run.run_task(complete_workflow("r"))
    assert to_result(run.state).result == payloads("r")


def test_result_of_failed_run_has_the_failure() -> None:
    run = RunDriver()
    run.run_task(fail_workflow(application_failure()))
    assert to_result(run.state).failure == application_failure()


def test_result_of_cancelled_run_has_the_details() -> None:
    run = RunDriver()
    run.run_task(cancel_workflow())
    assert to_result(run.state).failure.cancelled_failure_info.details == payloads("bye")


def test_result_of_terminated_run_has_the_reason() -> None:
    run = RunDriver()
    run.terminate()
    failure = to_result(run.state).failure
    assert failure.message == "stop"
    assert failure.HasField("terminated_failure_info")


def test_result_of_timed_out_run_is_a_timeout() -> None:
    run = RunDriver(workflow_run_timeout=seconds(1))
    run.advance(1)
    info = to_result(run.state).failure.timeout_failure_info
    assert info.timeout_type == failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE


def test_closed_run_has_no_open_activities() -> None:
    run = RunDriver()
    run.run_task(
        schedule_activity("a"), schedule_activity("b"), force_create_new_workflow_task=True
    )
    run.start_activity("a")
    run.run_task(complete_workflow())
    assert run.state.activities == {}
    assert run.state.activity_ids == {}
    assert run.inflight.activities == {}
