from datetime import timedelta

from google.protobuf import duration_pb2

from tests.support.runs import BEGIN, RunDriver, cancel_timer, complete_workflow, start_timer


def test_timer_fires_once_and_never_early() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 60))
    assert run.wake_time == BEGIN + timedelta(seconds=60)
    assert run.advance(59.999999) is None
    run.advance(0.000001)
    assert run.names(2) == ["TIMER_FIRED", "WORKFLOW_TASK_SCHEDULED"]
    fired = run.last_event("TIMER_FIRED").timer_fired_event_attributes
    assert (fired.timer_id, fired.started_event_id) == ("t", 5)
    assert run.advance(3600) is None
    assert run.state.timers == {}


def test_timer_of_parts_of_a_microsecond_is_not_early() -> None:
    run = RunDriver()
    command = start_timer()
    timeout = command.start_timer_command_attributes.start_to_fire_timeout
    timeout.CopyFrom(duration_pb2.Duration(nanos=1))
    run.run_task(command)
    assert run.state.timers["t"].fire_time == BEGIN + timedelta(microseconds=1)


def test_timers_due_together_fire_in_order_of_their_times() -> None:
    run = RunDriver()
    run.run_task(start_timer("b", 20), start_timer("c", 10), start_timer("a", 10))
    run.advance(30)
    fired = [event.timer_fired_event_attributes.timer_id for event in run.history[-4:-1]]
    assert fired == ["c", "a", "b"]
    assert run.names(1) == ["WORKFLOW_TASK_SCHEDULED"]


def test_timer_cancelled_does_not_fire() -> None:
    run = RunDriver()
    run.run_task(start_timer(), force_create_new_workflow_task=True)
    run.run_task(cancel_timer())
    assert run.names(1) == ["TIMER_CANCELLED"]
    assert run.advance(60) is None


def test_timer_started_and_cancelled_in_one_decision_does_not_fire() -> None:
    run = RunDriver()
    run.run_task(start_timer(), cancel_timer(), start_timer("t", 5))
    assert run.names(3) == ["TIMER_STARTED", "TIMER_CANCELLED", "TIMER_STARTED"]
    assert run.state.timers["t"].started_event_id == 7


def test_timer_that_fires_while_the_worker_decides_is_buffered() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5), force_create_new_workflow_task=True)
    run.start_task()
    run.advance(5)
    assert len(run.state.buffered_events) == 1
    assert run.state.timers == {}
    run.complete_task()
    assert run.names(2) == ["TIMER_FIRED", "WORKFLOW_TASK_SCHEDULED"]


def test_timer_cancelled_after_it_fired_unseen_is_withdrawn() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5), force_create_new_workflow_task=True)
    run.start_task()
    run.advance(5)
    run.complete_task(cancel_timer())
    assert run.names(2) == ["WORKFLOW_TASK_COMPLETED", "TIMER_CANCELLED"]
    assert run.last_event("TIMER_CANCELLED").timer_cancelled_event_attributes.started_event_id == 5
    assert run.state.buffered_events == []
    assert run.state.workflow_task is None


def test_timer_withdrawn_lets_the_run_close() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5), force_create_new_workflow_task=True)
    run.start_task()
    run.advance(5)
    assert run.complete_task(cancel_timer(), complete_workflow()).refused is None
    assert run.names(1) == ["WORKFLOW_EXECUTION_COMPLETED"]
    assert run.state.buffered_events == []


def test_timer_withdrawn_beside_a_signal_leaves_the_signal() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5), force_create_new_workflow_task=True)
    run.start_task()
    run.advance(5)
    run.signal()
    run.complete_task(cancel_timer())
    assert run.names(3) == [
        "TIMER_CANCELLED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]


def test_timer_withdrawn_in_a_refused_decision_fires_all_the_same() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5), force_create_new_workflow_task=True)
    run.start_task()
    run.advance(5)
    run.complete_task(cancel_timer(), cancel_timer())
    assert run.names(2) == ["TIMER_FIRED", "WORKFLOW_TASK_SCHEDULED"]


def test_timer_restarted_under_the_id_of_an_unseen_one_stays_open() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5), force_create_new_workflow_task=True)
    run.start_task()
    run.advance(5)
    run.complete_task(start_timer("t", 5))
    assert run.names(3) == ["TIMER_STARTED", "TIMER_FIRED", "WORKFLOW_TASK_SCHEDULED"]
    assert "t" in run.state.timers
    run.advance(5)
    assert run.names(1) == ["TIMER_FIRED"]


def test_timer_survives_its_host() -> None:
    run = RunDriver()
    run.run_task(start_timer("t", 5))
    run.now += timedelta(seconds=7)
    run.lose_host()
    assert run.names(2) == ["TIMER_FIRED", "WORKFLOW_TASK_SCHEDULED"]
