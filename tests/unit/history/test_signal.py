import pytest

from aetheris.api.v1 import history_pb2
from aetheris_server.errors import InvalidArgumentError, WorkflowClosedError
from aetheris_server.history.state.limits import RunLimits
from tests.support.runs import RunDriver, payloads, schedule_activity, seconds


def test_signal_schedules_a_workflow_task() -> None:
    run = RunDriver()
    run.run_task()
    run.signal(input=payloads("x"), identity="client")
    assert run.names(2) == ["WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_TASK_SCHEDULED"]
    attributes = run.history[-2].workflow_execution_signaled_event_attributes
    assert (attributes.signal_name, attributes.input) == ("go", payloads("x"))


def test_signal_before_the_task_is_taken_schedules_no_other() -> None:
    run = RunDriver()
    run.signal()
    assert run.names(1) == ["WORKFLOW_EXECUTION_SIGNALED"]
    assert len(run.refs) == 1


def test_signal_while_the_worker_decides_is_seen_next() -> None:
    run = RunDriver()
    run.start_task()
    run.signal("s1")
    run.signal("s2")
    run.complete_task()
    ids = [
        event.workflow_execution_signaled_event_attributes.request_id for event in run.history[4:6]
    ]
    assert ids == ["s1", "s2"]
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]
    assert run.state.signal_count == 2


def test_signal_repeated_is_recorded_once() -> None:
    run = RunDriver()
    assert run.signal("s1") is not None
    assert run.signal("s1") is None
    assert run.signal("s2") is not None


def test_signal_repeated_while_buffered_is_recorded_once() -> None:
    run = RunDriver()
    run.start_task()
    run.signal("s1")
    assert run.signal("s1") is None
    run.complete_task()
    assert run.signal("s1") is None
    assert run.names().count("WORKFLOW_EXECUTION_SIGNALED") == 1


def test_signal_repeated_after_close_succeeds_without_a_record() -> None:
    run = RunDriver()
    run.signal("s1")
    run.terminate()
    assert run.signal("s1") is None


def test_signal_of_closed_run_is_refused() -> None:
    run = RunDriver()
    run.terminate()
    with pytest.raises(WorkflowClosedError):
        run.signal()


def test_signal_beyond_the_limit_is_refused() -> None:
    run = RunDriver(RunLimits(max_signals=1))
    run.signal("s1")
    with pytest.raises(InvalidArgumentError):
        run.signal("s2")
    assert run.signal("s1") is None


@pytest.mark.parametrize(
    "limits", [RunLimits(max_buffered_events=2), RunLimits(max_buffered_bytes=100)]
)
def test_signal_into_full_buffer_fails_the_workflow_task(limits: RunLimits) -> None:
    run = RunDriver(limits)
    run.start_task()
    run.signal("s1", input=payloads("x" * 40))
    run.signal("s2", input=payloads("x" * 40))
    run.signal("s3")
    assert run.names(5) == [
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_EXECUTION_SIGNALED",
    ]
    failed = run.last_event("WORKFLOW_TASK_FAILED").workflow_task_failed_event_attributes
    assert failed.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND
    assert run.inflight.workflow_task is None
    run.start_task()


def test_signal_before_delayed_start_waits_for_it() -> None:
    run = RunDriver(start_delay=seconds(60))
    run.signal()
    assert run.names(1) == ["WORKFLOW_EXECUTION_SIGNALED"]
    assert run.state.workflow_task is None
    run.advance(60)
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]


def test_cancel_request_schedules_a_workflow_task() -> None:
    run = RunDriver()
    run.run_task()
    run.request_cancel()
    assert run.names(2) == ["WORKFLOW_EXECUTION_CANCEL_REQUESTED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.cancel_requested


def test_cancel_request_while_the_worker_decides_is_seen_next() -> None:
    run = RunDriver()
    run.start_task()
    run.request_cancel()
    assert run.state.cancel_requested
    run.complete_task()
    assert run.names(2) == ["WORKFLOW_EXECUTION_CANCEL_REQUESTED", "WORKFLOW_TASK_SCHEDULED"]


@pytest.mark.parametrize("request_id", ["c1", "c2"])
def test_cancel_request_second_succeeds_without_a_record(request_id: str) -> None:
    run = RunDriver()
    run.request_cancel("c1")
    assert run.request_cancel(request_id) is None


def test_cancel_request_of_closed_run_is_refused_unless_it_is_the_same() -> None:
    run = RunDriver()
    run.request_cancel("c1")
    run.terminate()
    assert run.request_cancel("c1") is None
    with pytest.raises(WorkflowClosedError):
        run.request_cancel("c2")


def test_cancel_request_with_the_id_of_a_signal_is_recorded() -> None:
    run = RunDriver()
    run.signal("same")
    assert run.request_cancel("same") is not None


def test_signal_with_the_id_of_a_cancel_request_is_recorded() -> None:
    run = RunDriver()
    run.request_cancel("same")
    assert run.signal("same") is not None


def test_cancel_request_before_delayed_start_runs_the_code_at_once() -> None:
    run = RunDriver(start_delay=seconds(3600))
    run.request_cancel()
    assert run.names(2) == ["WORKFLOW_EXECUTION_CANCEL_REQUESTED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.first_task_time is None
    assert run.advance(3600) is None
    run.run_task(schedule_activity())
