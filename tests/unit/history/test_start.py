from datetime import timedelta

from aetheris.api.v1 import workflow_pb2
from tests.support.runs import BEGIN, RunDriver, payloads, seconds


def test_start_schedules_the_first_workflow_task() -> None:
    run = RunDriver(input=payloads("in"), identity="client")
    assert run.names() == ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_TASK_SCHEDULED"]
    started = run.history[0].workflow_execution_started_event_attributes
    assert started.input == payloads("in")
    assert started.first_execution_run_id == started.original_execution_run_id == "run"
    assert started.workflow_task_timeout == seconds(10)
    assert (started.attempt, started.request_id) == (1, "start")
    assert run.state.first_task_time is None
    assert run.state.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING


def test_start_offers_the_first_task_and_wakes_for_nothing() -> None:
    run = RunDriver()
    [ref] = run.refs
    assert (ref.workflow_id, ref.run_id, ref.task_queue) == ("workflow", "run", "queue")
    assert (ref.scheduled_event_id, ref.attempt) == (2, 1)
    assert run.wake_time is None


def test_start_delayed_waits_for_its_time() -> None:
    run = RunDriver(start_delay=seconds(60))
    assert run.names() == ["WORKFLOW_EXECUTION_STARTED"]
    assert run.refs == []
    assert run.wake_time == BEGIN + timedelta(seconds=60)
    assert run.advance(59) is None
    run.advance(1)
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]
    assert len(run.refs) == 1


def test_start_delayed_survives_its_host() -> None:
    run = RunDriver(start_delay=seconds(60))
    run.now += timedelta(seconds=61)
    run.lose_host()
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]


def test_start_with_execution_timeout_says_when_it_expires() -> None:
    run = RunDriver(workflow_execution_timeout=seconds(50), start_delay=seconds(10))
    started = run.history[0].workflow_execution_started_event_attributes
    assert started.workflow_execution_expiration_time.ToSeconds() == BEGIN.timestamp() + 60
