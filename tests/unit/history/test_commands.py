from typing import Any

import pytest
from google.protobuf import duration_pb2

from aetheris.api.v1 import command_pb2, common_pb2, history_pb2
from aetheris_server.history.state.limits import RunLimits
from tests.support.runs import (
    RunDriver,
    application_failure,
    cancel_timer,
    cancel_workflow,
    complete_workflow,
    fail_workflow,
    payloads,
    record_marker,
    schedule_activity,
    seconds,
    start_timer,
)

_CAUSE = "WORKFLOW_TASK_FAILED_CAUSE_"


def _refusal(run: RunDriver, *commands: command_pb2.Command) -> str:
    """The cause with which a decision is refused, as recorded; empty if it is taken."""
    decision = run.run_task(*commands)
    if decision.refused is None:
        return ""
    failed = run.last_event("WORKFLOW_TASK_FAILED").workflow_task_failed_event_attributes
    assert failed.cause == decision.refused.cause
    assert failed.failure.message == str(decision.refused)
    return history_pb2.WorkflowTaskFailedCause.Name(failed.cause).removeprefix(_CAUSE)


def test_commands_are_recorded_in_order_behind_the_completed_task() -> None:
    run = RunDriver()
    run.run_task(start_timer(), schedule_activity(), record_marker())
    assert run.names(4) == [
        "WORKFLOW_TASK_COMPLETED",
        "TIMER_STARTED",
        "ACTIVITY_TASK_SCHEDULED",
        "MARKER_RECORDED",
    ]
    for event, name in zip(
        run.history[-3:],
        ["timer_started", "activity_task_scheduled", "marker_recorded"],
        strict=True,
    ):
        attributes = getattr(event, f"{name}_event_attributes")
        assert attributes.workflow_task_completed_event_id == 4


def test_commands_one_refused_records_none() -> None:
    run = RunDriver()
    assert _refusal(run, start_timer(), start_timer()) == "START_TIMER_DUPLICATE_ID"
    assert run.names(2) == ["WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_FAILED"]
    assert run.state.timers == {}
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 2


@pytest.mark.parametrize(
    "command,said",
    [
        (
            start_timer("x" * 1001),
            "commands[1].timer_id has 1001 bytes, expected 1 to 1000",
        ),
        (
            start_timer("t", -1),
            "commands[1].start_to_fire_timeout is -1 s, expected more than zero",
        ),
        (
            schedule_activity(retry_policy={"maximum_attempts": -1}),
            "commands[1].retry_policy.maximum_attempts is -1, expected 0 or more",
        ),
        (cancel_timer("none"), "commands[1].timer_id is 'none', expected that of an open timer"),
        (
            record_marker("x" * 3_000_000),
            "commands[1].marker_name has 3000000 bytes, expected 1 to 1000",
        ),
    ],
)
def test_commands_refused_are_named_with_field_found_and_expected(
    command: command_pb2.Command, said: str
) -> None:
    decision = RunDriver().run_task(start_timer("before"), command)
    assert decision.refused is not None
    assert str(decision.refused) == said
    path = said.partition(" ")[0]
    assert (decision.refused.field, decision.refused.description) == (path, said[len(path) + 1 :])


def test_commands_refused_as_a_whole_name_no_field() -> None:
    big = complete_workflow("x" * 3_000_000)
    decision = RunDriver().run_task(big)
    assert str(decision.refused).startswith("commands[0]: found 30")
    decision = RunDriver(RunLimits(history_max_events=2)).run_task(start_timer())
    assert str(decision.refused).startswith("the history has reached its limit")


@pytest.mark.parametrize(
    "attributes",
    [
        {"activity_id": ""},
        {"activity_id": "x" * 1001},
        {"task_queue": {"name": "x" * 1001}},
        {"start_to_close_timeout": seconds(0)},
        {"start_to_close_timeout": seconds(-1)},
        {"heartbeat_timeout": seconds(-1), "start_to_close_timeout": seconds(1)},
        {"retry_policy": {"backoff_coefficient": 0.5}},
        {"retry_policy": {"backoff_coefficient": float("nan")}},
        {"retry_policy": {"maximum_attempts": -1}},
        {"retry_policy": {"initial_interval": seconds(-1)}},
        {"retry_policy": {"initial_interval": seconds(5), "maximum_interval": seconds(1)}},
        {"capabilities": ["llm", "llm"]},
        {"capabilities": [""]},
        {"capabilities": [str(number) for number in range(101)]},
        {"delivery": 77},
        {"priority": {"priority_key": 6}},
        {"priority": {"fairness_weight": -1}},
    ],
)
def test_schedule_activity_bad_attributes_are_refused(attributes: dict[str, Any]) -> None:
    cause = _refusal(RunDriver(), schedule_activity(**attributes))
    assert cause == "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES"


def test_schedule_activity_without_type_is_refused() -> None:
    command = schedule_activity()
    command.schedule_activity_task_command_attributes.activity_type.name = ""
    assert _refusal(RunDriver(), command) == "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES"


def test_schedule_activity_id_of_open_activity_is_refused() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"), force_create_new_workflow_task=True)
    assert _refusal(run, schedule_activity("a")) == "SCHEDULE_ACTIVITY_DUPLICATE_ID"


def test_schedule_activity_same_id_twice_in_one_decision_is_refused() -> None:
    cause = _refusal(RunDriver(), schedule_activity("a"), schedule_activity("a"))
    assert cause == "SCHEDULE_ACTIVITY_DUPLICATE_ID"


def test_schedule_activity_id_of_closed_activity_is_free() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"))
    run.start_activity()
    run.complete_activity()
    assert _refusal(run, schedule_activity("a")) == ""


def test_schedule_activity_beyond_the_limit_is_refused() -> None:
    run = RunDriver(RunLimits(max_pending_activities=1))
    cause = _refusal(run, schedule_activity("a"), schedule_activity("b"))
    assert cause == "PENDING_ACTIVITIES_LIMIT_EXCEEDED"


@pytest.mark.parametrize(
    "command",
    [
        schedule_activity(input=payloads("x" * 200)),
        schedule_activity(
            header=common_pb2.Header(fields={"k": common_pb2.Payload(data=b"x" * 200)})
        ),
        complete_workflow("x" * 200),
        fail_workflow(application_failure(details=payloads("x" * 200))),
    ],
)
def test_command_that_carries_too_much_is_refused(command: command_pb2.Command) -> None:
    assert _refusal(RunDriver(RunLimits(payload_max_bytes=100)), command) == "PAYLOADS_TOO_LARGE"


def test_schedule_activity_without_queue_takes_the_runs_own() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"), schedule_activity("b", task_queue={"name": "gpus"}))
    assert run.activity("a").scheduled.task_queue.name == "queue"
    assert run.activity("b").scheduled.task_queue.name == "gpus"


def test_schedule_activity_eager_is_offered_to_the_worker_for_its_own_queue_only() -> None:
    run = RunDriver()
    decision = run.run_task(
        schedule_activity("a", request_eager_execution=True),
        schedule_activity("b", request_eager_execution=True, task_queue={"name": "gpus"}),
        schedule_activity("c"),
    )
    assert decision.eager_event_ids == [run.activity("a").scheduled_event_id]


def test_schedule_activity_eager_and_close_offers_nothing() -> None:
    run = RunDriver()
    decision = run.run_task(
        schedule_activity("a", request_eager_execution=True), complete_workflow()
    )
    assert decision.eager_event_ids == []


@pytest.mark.parametrize("timeout", [0, -1])
def test_start_timer_without_a_time_is_refused(timeout: float) -> None:
    assert _refusal(RunDriver(), start_timer("t", timeout)) == "BAD_START_TIMER_ATTRIBUTES"


@pytest.mark.parametrize("years", [101, 10_000, 10**15])
def test_durations_beyond_the_maximum_are_refused_and_not_cut(years: int) -> None:
    longest = duration_pb2.Duration(seconds=min(years * 31_556_952, 2**63 - 1))
    timer = start_timer("t")
    timer.start_timer_command_attributes.start_to_fire_timeout.CopyFrom(longest)
    assert _refusal(RunDriver(), timer) == "BAD_START_TIMER_ATTRIBUTES"
    bad_activity = "BAD_SCHEDULE_ACTIVITY_ATTRIBUTES"
    for fields in (
        {"start_to_close_timeout": longest},
        {"schedule_to_start_timeout": longest},
        {"retry_policy": {"maximum_interval": longest}},
    ):
        assert _refusal(RunDriver(), schedule_activity("a", **fields)) == bad_activity


def test_start_timer_without_id_is_refused() -> None:
    assert _refusal(RunDriver(), start_timer("")) == "BAD_START_TIMER_ATTRIBUTES"


def test_start_timer_beyond_the_limit_is_refused() -> None:
    run = RunDriver(RunLimits(max_pending_timers=1))
    assert _refusal(run, start_timer("t"), start_timer("u")) == "BAD_START_TIMER_ATTRIBUTES"


def test_cancel_timer_that_is_not_open_is_refused() -> None:
    assert _refusal(RunDriver(), cancel_timer()) == "BAD_CANCEL_TIMER_ATTRIBUTES"


def test_record_marker_without_name_is_refused() -> None:
    assert _refusal(RunDriver(), record_marker("")) == "BAD_RECORD_MARKER_ATTRIBUTES"


def test_fail_workflow_without_failure_is_refused() -> None:
    cause = _refusal(RunDriver(), fail_workflow())
    assert cause == "BAD_FAIL_WORKFLOW_EXECUTION_ATTRIBUTES"


@pytest.mark.parametrize("command_type", [command_pb2.COMMAND_TYPE_UNSPECIFIED, 17, 4711])
def test_command_that_is_not_served_is_refused(
    command_type: command_pb2.CommandType.ValueType,
) -> None:
    command = command_pb2.Command(command_type=command_type)
    assert _refusal(RunDriver(), command) == "FEATURE_DISABLED"


@pytest.mark.parametrize(
    "command, name",
    [
        (complete_workflow(), "WORKFLOW_EXECUTION_COMPLETED"),
        (fail_workflow(application_failure()), "WORKFLOW_EXECUTION_FAILED"),
        (cancel_workflow(), "WORKFLOW_EXECUTION_CANCELLED"),
    ],
)
def test_closing_command_with_unseen_events_is_unhandled(
    command: command_pb2.Command, name: str
) -> None:
    run = RunDriver()
    run.start_task()
    run.signal()
    decision = run.complete_task(command)
    assert decision.refused is not None
    assert run.names(3) == [
        "WORKFLOW_TASK_FAILED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]
    failed = run.last_event("WORKFLOW_TASK_FAILED").workflow_task_failed_event_attributes
    assert failed.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    run.run_task(command)
    assert run.names(1) == [name]


def test_closing_commands_after_the_first_are_ignored() -> None:
    run = RunDriver()
    run.run_task(complete_workflow(), fail_workflow(application_failure()), start_timer())
    assert run.names(1) == ["WORKFLOW_EXECUTION_COMPLETED"]


def test_other_commands_with_unseen_events_are_taken() -> None:
    run = RunDriver()
    run.start_task()
    run.signal()
    run.complete_task(start_timer())
    assert run.names(4) == [
        "WORKFLOW_TASK_COMPLETED",
        "TIMER_STARTED",
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]


def test_history_limit_refuses_new_work_and_lets_the_run_go_on_and_close() -> None:
    run = RunDriver(RunLimits(history_max_events=3))
    assert _refusal(run, start_timer()) == "HISTORY_LIMIT_EXCEEDED"
    assert run.run_task(force_create_new_workflow_task=True).refused is None
    run.run_task(record_marker(), complete_workflow())
    assert run.names(1) == ["WORKFLOW_EXECUTION_COMPLETED"]


def test_repeated_refusal_writes_no_more_events() -> None:
    run = RunDriver()
    run.run_task(cancel_timer())
    length = len(run.history)
    assert run.run_task(cancel_timer()).refused is not None
    assert len(run.history) == length
