"""The run that continues another: when there is one, and what it begins with."""

from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1 import command_pb2, common_pb2, failure_pb2, history_pb2, workflow_pb2
from aetheris_server.errors import WorkflowClosedError
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.lifecycle.close import to_result
from aetheris_server.history.state.machines.lifecycle.successor import next_run_id
from aetheris_server.history.times import from_timestamp
from aetheris_server.storage.uuids import is_uuid
from tests.support.runs import (
    BEGIN,
    RunDriver,
    application_failure,
    cancel_workflow,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    memo,
    payloads,
    search_attributes,
    seconds,
    upsert_memo,
    upsert_search_attributes,
)

_POLICY = common_pb2.RetryPolicy(
    initial_interval=seconds(10), backoff_coefficient=3, maximum_attempts=3
)
_STARTED: dict[str, Any] = {
    "input": payloads("in"),
    "workflow_run_timeout": seconds(100),
    "workflow_execution_timeout": seconds(1000),
    "workflow_task_timeout": seconds(7),
    "memo": memo(a="1"),
    "search_attributes": search_attributes(place='"here"'),
    "header": common_pb2.Header(fields={"trace": common_pb2.Payload(data=b"t")}),
    "retry_policy": _POLICY,
    "priority": common_pb2.Priority(priority_key=2),
    "identity": "client",
}
_NEXT_ID = next_run_id("run")


def test_next_run_id_follows_from_the_run_and_is_stored_for_ever() -> None:
    assert next_run_id("run") == "22894648-376a-511d-b350-319647ebeadf"
    assert is_uuid(next_run_id("run"))


# Continue-as-new.


def test_continue_as_new_closes_the_run_and_begins_the_next() -> None:
    run = RunDriver(**_STARTED)
    run.now += timedelta(seconds=5)
    run.run_task(continue_as_new(input=payloads("again")))
    assert run.names(2) == ["WORKFLOW_TASK_COMPLETED", "WORKFLOW_EXECUTION_CONTINUED_AS_NEW"]
    closed = run.history[-1].workflow_execution_continued_as_new_event_attributes
    assert closed.new_execution_run_id == _NEXT_ID
    assert (closed.workflow_type.name, closed.task_queue.name) == ("Flow", "queue")
    assert closed.workflow_task_completed_event_id == run.history[-2].event_id
    assert run.state.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW
    result = to_result(run.state)
    assert (result.status, result.new_execution_run_id) == (run.state.status, _NEXT_ID)

    following = run.continued()
    assert following.state.key.run_id == _NEXT_ID
    assert following.names() == ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_TASK_SCHEDULED"]
    assert len(following.refs) == 1
    assert following.state.start_time == run.now


def test_continue_as_new_carries_over_what_the_command_leaves_out() -> None:
    run = RunDriver(**_STARTED)
    run.now += timedelta(seconds=5)
    run.run_task(continue_as_new())
    before, after = run.state.started, run.successor()
    for name in (
        "workflow_type",
        "task_queue",
        "workflow_run_timeout",
        "workflow_execution_timeout",
        "workflow_task_timeout",
        "workflow_execution_expiration_time",
        "memo",
        "search_attributes",
        "header",
        "retry_policy",
        "priority",
        "identity",
        "workflow_id",
        "first_execution_run_id",
    ):
        assert getattr(after, name) == getattr(before, name), name
    assert not after.HasField("input")
    assert not after.HasField("first_workflow_task_backoff")
    assert after.first_execution_run_id == after.continued_execution_run_id == "run"
    assert after.original_execution_run_id == after.request_id == _NEXT_ID
    assert after.attempt == 1
    assert after.initiator == workflow_pb2.CONTINUE_AS_NEW_INITIATOR_WORKFLOW


def test_continue_as_new_begins_with_what_the_command_says() -> None:
    given: dict[str, Any] = {
        "workflow_type": common_pb2.WorkflowType(name="Other"),
        "input": payloads("again"),
        "workflow_run_timeout": seconds(5),
        "workflow_task_timeout": seconds(6),
        "retry_policy": common_pb2.RetryPolicy(maximum_attempts=9),
        "last_completion_result": payloads("last"),
        "header": common_pb2.Header(fields={"trace": common_pb2.Payload(data=b"u")}),
        "memo": memo(b="2"),
        "search_attributes": search_attributes(kind='"x"'),
    }
    run = RunDriver(**_STARTED)
    run.run_task(continue_as_new(backoff_start_interval=seconds(8), **given))
    after = run.successor()
    for name, value in given.items():
        if name != "retry_policy":
            assert getattr(after, name) == value, name
    assert after.retry_policy.maximum_attempts == 9
    # The gaps are filled in, as at a start.
    assert after.retry_policy.initial_interval == seconds(1)
    assert after.first_workflow_task_backoff == seconds(8)
    following = run.continued()
    assert following.names() == ["WORKFLOW_EXECUTION_STARTED"]
    assert following.wake_time == following.now + timedelta(seconds=8)
    following.advance(8)
    assert following.names(1) == ["WORKFLOW_TASK_SCHEDULED"]


@pytest.mark.parametrize("delay, asked, waits", [(0, 0, 1), (0.4, 0, 0.6), (1, 0, 0), (0, 3, 3)])
def test_continue_as_new_at_once_waits_for_the_rest_of_the_interval(
    delay: float, asked: float, waits: float
) -> None:
    run = RunDriver(start_delay=seconds(50))
    run.advance(50)
    run.now += timedelta(seconds=delay)
    run.run_task(continue_as_new(backoff_start_interval=seconds(asked)))
    backoff = run.successor().first_workflow_task_backoff
    assert backoff.ToTimedelta() == timedelta(seconds=waits)


def test_continue_as_new_goes_on_with_the_notes_as_they_are_now() -> None:
    run = RunDriver(**_STARTED)
    run.run_task(
        upsert_memo(a="2", b="3"),
        upsert_search_attributes(place="", kind='"x"'),
        continue_as_new(),
    )
    assert run.successor().memo == memo(a="2", b="3")
    assert run.successor().search_attributes == search_attributes(kind='"x"')


def test_continue_as_new_behind_a_signal_that_the_code_has_not_seen_is_refused() -> None:
    run = RunDriver()
    run.start_task()
    run.signal()
    decision = run.complete_task(continue_as_new())
    assert decision.refused is not None
    assert decision.refused.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
    assert run.state.is_open
    assert run.begun is None


@pytest.mark.parametrize(
    "given, message",
    [
        (
            {"workflow_type": common_pb2.WorkflowType(name="x" * 1001)},
            "workflow_type.name has 1001",
        ),
        (
            {"workflow_type": common_pb2.WorkflowType(name="a\0b")},
            "workflow_type.name has a U.0000",
        ),
        ({"workflow_run_timeout": seconds(-1)}, "workflow_run_timeout is -1.0 s"),
        (
            {"workflow_task_timeout": seconds(121)},
            "workflow_task_timeout is 121 s, expected at most",
        ),
        ({"backoff_start_interval": seconds(4e9)}, "backoff_start_interval is 4000000000 s"),
        ({"retry_policy": common_pb2.RetryPolicy(maximum_attempts=-1)}, "retry_policy.maximum_att"),
        ({"cron_schedule": "* * * * *"}, "cron_schedule is set"),
        ({"initiator": workflow_pb2.CONTINUE_AS_NEW_INITIATOR_RETRY}, "initiator is 2"),
    ],
)
def test_continue_as_new_with_bad_field_is_refused_by_its_name(
    given: dict[str, Any], message: str
) -> None:
    run = RunDriver()
    run.start_task()
    refused = run.complete_task(continue_as_new(**given)).refused
    assert refused is not None
    assert refused.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_CONTINUE_AS_NEW_ATTRIBUTES
    assert message.replace(".0000", "+0000") in str(refused)
    assert run.state.is_open


def test_continue_as_new_with_bad_search_attributes_is_refused() -> None:
    run = RunDriver()
    run.start_task()
    refused = run.complete_task(continue_as_new(search_attributes=search_attributes(a="{"))).refused
    assert refused is not None
    assert refused.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES


# The retry policy.


def test_failed_run_is_tried_again_by_its_policy_until_the_attempts_are_used_up() -> None:
    run = RunDriver(**_STARTED)
    waits: list[float] = []
    states: list[int] = []
    for _ in range(3):
        run.run_task(fail_workflow(application_failure()))
        failed = run.history[-1].workflow_execution_failed_event_attributes
        states.append(failed.retry_state)
        if run.begun is None:
            assert failed.new_execution_run_id == ""
            break
        assert failed.new_execution_run_id == run.begun[0].run_id
        after = run.successor()
        waits.append(after.first_workflow_task_backoff.ToTimedelta().total_seconds())
        assert after.continued_failure == application_failure()
        assert after.initiator == workflow_pb2.CONTINUE_AS_NEW_INITIATOR_RETRY
        assert after.input == payloads("in")
        assert after.first_execution_run_id == "run"
        assert after.attempt == len(waits) + 1
        run = run.continued()
        assert run.names() == ["WORKFLOW_EXECUTION_STARTED"]
        run.advance(waits[-1])
    assert waits == [10, 30]
    assert states == [
        failure_pb2.RETRY_STATE_IN_PROGRESS,
        failure_pb2.RETRY_STATE_IN_PROGRESS,
        failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED,
    ]


def test_large_failure_is_cut_for_the_next_attempt() -> None:
    run = RunDriver(retry_policy=_POLICY)
    failure = application_failure(details=payloads("x" * 100_000))
    run.run_task(fail_workflow(failure))
    assert run.history[-1].workflow_execution_failed_event_attributes.failure == failure
    kept = run.successor().continued_failure
    assert kept.ByteSize() < 4096
    assert (kept.message, kept.application_failure_info.type) == ("oops", "Oops")


@pytest.mark.parametrize(
    "policy, failure, state",
    [
        (None, application_failure(), failure_pb2.RETRY_STATE_RETRY_POLICY_NOT_SET),
        (
            _POLICY,
            application_failure(non_retryable=True),
            failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE,
        ),
        (
            common_pb2.RetryPolicy(non_retryable_error_types=["Oops"]),
            application_failure("Oops"),
            failure_pb2.RETRY_STATE_NON_RETRYABLE_FAILURE,
        ),
        (
            _POLICY,
            application_failure(next_retry_delay=seconds(2000)),
            failure_pb2.RETRY_STATE_TIMEOUT,
        ),
    ],
)
def test_failed_run_that_is_not_tried_again_says_why(
    policy: common_pb2.RetryPolicy | None,
    failure: failure_pb2.Failure,
    state: failure_pb2.RetryState.ValueType,
) -> None:
    run = RunDriver(retry_policy=policy, workflow_execution_timeout=seconds(1000))
    run.run_task(fail_workflow(failure))
    failed = run.history[-1].workflow_execution_failed_event_attributes
    assert failed.retry_state == state
    assert failed.new_execution_run_id == ""
    assert run.begun is None


def test_failed_run_that_was_asked_to_cancel_is_not_tried_again() -> None:
    run = RunDriver(retry_policy=_POLICY)
    run.request_cancel()
    run.run_task(fail_workflow(application_failure()))
    failed = run.history[-1].workflow_execution_failed_event_attributes
    assert failed.retry_state == failure_pb2.RETRY_STATE_CANCEL_REQUESTED
    assert run.begun is None


def test_failure_says_when_the_run_is_tried_again() -> None:
    run = RunDriver(retry_policy=_POLICY)
    run.run_task(fail_workflow(application_failure(next_retry_delay=seconds(77))))
    assert run.successor().first_workflow_task_backoff == seconds(77)


def test_failure_may_have_the_run_tried_again_at_once() -> None:
    run = RunDriver(retry_policy=_POLICY)
    run.run_task(fail_workflow(application_failure(next_retry_delay=seconds(0))))
    assert run.continued().names() == ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_TASK_SCHEDULED"]


def test_run_behind_its_own_deadline_is_tried_again() -> None:
    run = RunDriver(retry_policy=_POLICY, workflow_run_timeout=seconds(50))
    run.advance(50)
    timed_out = run.history[-1].workflow_execution_timed_out_event_attributes
    assert timed_out.new_execution_run_id == _NEXT_ID
    assert timed_out.retry_state == failure_pb2.RETRY_STATE_IN_PROGRESS
    assert to_result(run.state).new_execution_run_id == _NEXT_ID
    following = run.continued()
    assert run.successor().continued_failure.HasField("timeout_failure_info")
    # The run's own limit counts from its first task, which waits for the backoff.
    following.advance(59)
    assert following.state.is_open
    following.advance(1)
    assert following.names(1) == ["WORKFLOW_EXECUTION_TIMED_OUT"]


def test_run_behind_the_deadline_of_its_chain_is_not_tried_again() -> None:
    run = RunDriver(retry_policy=_POLICY, workflow_execution_timeout=seconds(50))
    run.advance(50)
    timed_out = run.history[-1].workflow_execution_timed_out_event_attributes
    assert timed_out.new_execution_run_id == ""
    assert timed_out.retry_state == failure_pb2.RETRY_STATE_TIMEOUT


def test_chain_is_over_at_the_time_that_its_first_run_was_given() -> None:
    run = RunDriver(workflow_execution_timeout=seconds(50), workflow_run_timeout=seconds(40))
    run.now += timedelta(seconds=30)
    run.run_task(continue_as_new())
    following = run.continued()
    assert following.state.run_deadline_time == BEGIN + timedelta(seconds=50)


@pytest.mark.parametrize("command", [complete_workflow(), cancel_workflow()])
def test_run_that_completed_or_was_cancelled_has_no_successor(command: command_pb2.Command) -> None:
    run = RunDriver(retry_policy=_POLICY)
    run.run_task(command)
    assert run.begun is None
    assert to_result(run.state).new_execution_run_id == ""


def test_terminated_run_has_no_successor() -> None:
    run = RunDriver(retry_policy=_POLICY)
    run.terminate()
    assert run.begun is None
    with pytest.raises(WorkflowClosedError):
        run.signal()


def test_successor_starts_later_than_the_run_though_no_time_has_passed() -> None:
    run = RunDriver(RunLimits(min_continue_interval=timedelta(0)))
    run.run_task(continue_as_new())
    assert run.now == BEGIN
    started = run.continued().history[0]
    assert from_timestamp(started.event_time) == BEGIN + timedelta(microseconds=1)
