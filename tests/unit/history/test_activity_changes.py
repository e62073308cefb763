"""What is done to an open activity from outside: pause, unpause, reset, other options."""

from datetime import timedelta

import pytest

from aetheris.api.v1 import common_pb2, failure_pb2, task_queue_pb2, workflow_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY
from aetheris.api.v1.workflow_service_pb2 import DescribeWorkflowResponse
from aetheris_server.errors import (
    ActivityNotFoundError,
    InvalidArgumentError,
    TaskNotFoundError,
    WorkflowClosedError,
)
from aetheris_server.history.state.deadlines import next_deadline, next_inflight_deadline
from aetheris_server.history.state.machines.activity.answers import require_attempt
from aetheris_server.history.state.obligations import owes
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import (
    KEY,
    RunDriver,
    application_failure,
    complete_workflow,
    ref_ids,
    schedule_activity,
    seconds,
)

_Options = workflow_pb2.ActivityOptions
_ELSEWHERE = _Options(task_queue=task_queue_pb2.TaskQueue(name="elsewhere"))


def _policy(maximum_attempts: int) -> common_pb2.RetryPolicy:
    return common_pb2.RetryPolicy(maximum_attempts=maximum_attempts)


def _run(**attributes: object) -> RunDriver:
    run = RunDriver()
    run.run_task(schedule_activity("a", **attributes))
    run.refs.clear()
    return run


def _brought(run: RunDriver) -> list[tuple[int, int]]:
    refs = [(ref.scheduled_event_id, ref.attempt) for ref in run.refs]
    run.refs.clear()
    return refs


def _describe(run: RunDriver) -> workflow_pb2.PendingActivityInfo:
    response = DescribeWorkflowResponse()
    for describe in RUN_MACHINES.describe:
        describe(run.state, run.inflight, response)
    (info,) = response.pending_activities
    return info


def _check_reread(run: RunDriver) -> None:
    """Log, snapshot and memory agree."""
    loaded = from_snapshot(KEY, run.state.run_seq, run.state.hash, to_snapshot(run.state))
    assert loaded == run.state == run.fold()


# The table: open or paused, waiting or running, by each verb.


@pytest.mark.parametrize("is_paused", [False, True])
@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("verb", ["pause", "unpause", "reset", "reset and keep", "update"])
def test_activity_moves_by_its_table(verb: str, is_running: bool, is_paused: bool) -> None:
    run = _run()
    if is_running:
        run.start_activity()
    if is_paused:
        run.pause_activity()
    match verb:
        case "pause":
            changes, stays_paused = run.pause_activity() is not None, True
            assert changes == (not is_paused)
        case "unpause":
            changes, stays_paused = run.unpause_activity() is not None, False
            assert changes == is_paused
        case "reset":
            assert run.reset_activity() is not None
            stays_paused = False
        case "reset and keep":
            assert run.reset_activity(keep_paused=True) is not None
            stays_paused = is_paused
        case _:
            assert run.update_activity("a", _Options(), "heartbeat_timeout") is not None
            stays_paused = is_paused
    activity = run.activity()
    assert (activity.pause is not None) == stays_paused
    assert (activity.scheduled_event_id in run.inflight.activities) == is_running
    assert activity.is_reset == (verb.startswith("reset") and is_running)
    assert owes(run.state) == (not stays_paused)
    _check_reread(run)


def test_unknown_activity_is_not_found() -> None:
    run = _run()
    for verb in (run.pause_activity, run.unpause_activity, run.reset_activity, run.update_activity):
        with pytest.raises(ActivityNotFoundError) as refused:
            verb("nothing")
        assert refused.value.activity_id == "nothing"


def test_activity_of_a_closed_run_says_that_it_closed() -> None:
    run = _run()
    run.terminate()
    with pytest.raises(WorkflowClosedError):
        run.pause_activity()


def test_request_that_comes_again_changes_nothing() -> None:
    run = _run()
    assert run.pause_activity(request_id="p") is not None
    assert run.unpause_activity(request_id="u") is not None
    assert run.pause_activity(request_id="p") is None
    assert run.reset_activity(request_id="r") is not None
    assert run.reset_activity(request_id="r") is None
    assert run.activity().pause is None


# Pause.


def test_paused_activity_is_not_owed_and_is_offered_once_when_it_goes_on() -> None:
    run = _run()
    run.pause_activity()
    assert run.owed_tasks() == []
    run.unpause_activity()
    assert _brought(run) == [(5, 1)]
    assert len(run.history) == 5


def test_retry_of_a_paused_activity_waits_and_then_does_not_back_off() -> None:
    run = _run()
    run.start_activity()
    run.pause_activity()
    run.fail_activity()
    assert run.activity().attempt == 2
    run.advance(60)
    assert next_deadline(run.state, run.inflight, run.now) is None
    assert _brought(run) == []
    run.unpause_activity()
    assert len(_brought(run)) == 1


def test_unpause_cuts_a_backoff_short() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity(failure=application_failure(next_retry_delay=seconds(600)))
    run.pause_activity()
    run.unpause_activity()
    assert _brought(run) == [(5, 3)]
    assert run.activity().counted_attempt == 2
    assert run.start_activity().attempt == 3


def test_unpause_with_a_delay_is_due_then() -> None:
    run = _run()
    run.pause_activity()
    run.unpause_activity(delay=7)
    assert _brought(run) == []
    assert next_deadline(run.state, run.inflight, run.now) == run.now + timedelta(seconds=7)
    run.lose_host()
    assert _brought(run) == []
    run.advance(7)
    assert _brought(run) == [(5, 2)]
    assert run.activity().counted_attempt == 1


def test_result_of_a_paused_activity_counts() -> None:
    run = _run()
    run.start_activity()
    run.pause_activity()
    run.complete_activity()
    assert run.names(3) == [
        "ACTIVITY_TASK_STARTED",
        "ACTIVITY_TASK_COMPLETED",
        "WORKFLOW_TASK_SCHEDULED",
    ]


def test_attempt_broken_off_for_a_pause_does_not_count() -> None:
    run = _run(retry_policy={"maximum_attempts": 1})
    run.start_activity()
    run.pause_activity()
    run.fail_activity(failure=application_failure("ActivityPause"))
    activity = run.activity()
    assert (activity.attempt, activity.counted_attempt) == (2, 1)
    assert activity.attempts[-1].attempt == 1
    run.unpause_activity()
    run.start_activity()
    run.fail_activity()
    failed = run.last_event("ACTIVITY_TASK_FAILED").activity_task_failed_event_attributes
    assert failed.retry_state == failure_pb2.RETRY_STATE_MAXIMUM_ATTEMPTS_REACHED
    started = run.last_event("ACTIVITY_TASK_STARTED").activity_task_started_event_attributes
    assert started.attempt == 1


def test_attempt_broken_off_for_a_pause_that_has_ended_meanwhile_does_not_count_either() -> None:
    run = _run(retry_policy={"maximum_attempts": 1})
    run.start_activity()
    run.pause_activity()
    run.unpause_activity()
    run.fail_activity(failure=application_failure("ActivityPause"))
    assert run.activity().counted_attempt == 1
    assert _brought(run)[-1:] == [(5, 2)]


def test_failure_named_like_a_pause_that_there_was_not_counts() -> None:
    run = _run(retry_policy={"maximum_attempts": 1})
    run.start_activity()
    run.fail_activity(failure=application_failure("ActivityPause"))
    assert run.state.activities == {}


def test_time_to_find_a_worker_does_not_count_while_paused() -> None:
    run = _run(schedule_to_start_timeout=seconds(20), start_to_close_timeout=seconds(10))
    run.pause_activity()
    run.advance(100)
    assert "a" in run.state.activity_ids
    run.unpause_activity()
    run.advance(19)
    assert "a" in run.state.activity_ids
    run.advance(1)
    assert run.names(2) == ["ACTIVITY_TASK_TIMED_OUT", "WORKFLOW_TASK_SCHEDULED"]


def test_time_of_all_attempts_goes_on_while_paused() -> None:
    run = _run(schedule_to_close_timeout=seconds(30))
    run.pause_activity()
    run.advance(30)
    assert run.names(2) == ["ACTIVITY_TASK_TIMED_OUT", "WORKFLOW_TASK_SCHEDULED"]


def test_activity_of_a_paused_run_waits_for_both() -> None:
    run = _run()
    run.pause()
    run.pause_activity()
    run.unpause()
    assert _brought(run) == []
    run.pause("p2")
    run.unpause_activity()
    assert _brought(run) == []
    run.unpause("u2")
    assert _brought(run) == [(5, 1)]


def test_pause_survives_the_host() -> None:
    run = _run()
    run.pause_activity()
    run.lose_host()
    assert not owes(run.state)
    assert _brought(run) == []
    run.unpause_activity()
    assert _brought(run) == [(5, 1)]


# Reset.


def test_reset_of_a_waiting_activity_offers_its_first_attempt_anew() -> None:
    run = _run(retry_policy={"maximum_attempts": 2})
    run.start_activity()
    run.fail_activity()
    run.reset_activity()
    activity = run.activity()
    assert (activity.attempt, activity.counted_attempt) == (3, 1)
    assert _brought(run) == [(5, 3)]
    for counted in (1, 2):
        run.advance(100)
        run.start_activity()
        assert run.activity().counted_attempt == counted
        run.fail_activity()
    assert run.state.activities == {}


def test_reset_gives_the_activity_its_whole_time_again() -> None:
    run = _run(schedule_to_close_timeout=seconds(30))
    run.advance(20)
    run.reset_activity()
    run.advance(29)
    assert "a" in run.state.activity_ids
    run.advance(1)
    assert run.state.activities == {}


def test_answer_of_an_attempt_from_before_a_reset_is_refused() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity()
    run.reset_activity()
    with pytest.raises(TaskNotFoundError):
        require_attempt(run.state, 5, 1)
    with pytest.raises(TaskNotFoundError):
        require_attempt(run.state, 5, 2)


@pytest.mark.parametrize("type_", ["ActivityReset", "Oops"])
def test_running_attempt_of_a_reset_activity_is_followed_by_a_first_one(type_: str) -> None:
    run = _run(retry_policy={"maximum_attempts": 2})
    run.start_activity()
    run.fail_activity()
    run.advance(2)
    run.start_activity()
    run.reset_activity()
    assert run.activity().counted_attempt == 2
    run.fail_activity(failure=application_failure(type_))
    activity = run.activity()
    assert (activity.attempt, activity.counted_attempt, activity.is_reset) == (3, 1, False)
    assert (activity.scheduled_event_id in run.inflight.backing_off) == (type_ == "Oops")


def test_result_of_a_reset_activity_counts() -> None:
    run = _run()
    run.start_activity()
    run.reset_activity()
    run.complete_activity()
    assert "ACTIVITY_TASK_COMPLETED" in run.names(2)


def test_attempt_that_times_out_after_a_reset_is_followed_by_a_first_one() -> None:
    run = _run(retry_policy={"maximum_attempts": 1}, start_to_close_timeout=seconds(10))
    run.start_activity()
    run.reset_activity()
    run.advance(10)
    assert run.activity().counted_attempt == 1


def test_reset_forgets_heartbeats_if_asked() -> None:
    run = _run(heartbeat_timeout=seconds(5))
    run.start_activity()
    run.heartbeat(details="half")
    run.reset_activity()
    assert run.activity().heartbeat_details is not None
    run.reset_activity(reset_heartbeat=True)
    assert run.activity().heartbeat_details is None
    _check_reread(run)


# Options.


def test_options_that_are_changed_hold_for_an_attempt_that_waits() -> None:
    run = _run()
    scheduled_event = run.last_event("ACTIVITY_TASK_SCHEDULED").SerializeToString()
    run.update_activity(
        "a",
        _Options(start_to_close_timeout=seconds(60), retry_policy=_policy(7)),
        "start_to_close_timeout",
        "retry_policy.maximum_attempts",
    )
    run.start_activity()
    assert next_inflight_deadline(run.state, run.inflight, run.at) == run.at + 60
    assert run.activity().scheduled.retry_policy.maximum_attempts == 7
    assert run.activity().scheduled.retry_policy.initial_interval == seconds(1)
    assert run.last_event("ACTIVITY_TASK_SCHEDULED").SerializeToString() == scheduled_event
    _check_reread(run)


def test_options_that_are_changed_hold_for_the_attempt_after_a_running_one() -> None:
    run = _run()
    run.start_activity()
    run.update_activity("a", _Options(start_to_close_timeout=seconds(60)), "start_to_close_timeout")
    run.advance(10)
    assert run.activity().attempt == 2
    run.advance(1)
    run.start_activity()
    assert next_inflight_deadline(run.state, run.inflight, run.at) == run.at + 60


def test_activity_is_moved_to_another_queue_under_a_new_number() -> None:
    run = _run()
    run.update_activity("a", _ELSEWHERE, "task_queue")
    (ref,) = run.refs
    assert (ref.task_queue, ref.attempt) == ("elsewhere", 2)
    assert run.activity().counted_attempt == 1
    assert ref_ids(run.owed_tasks()) == {(TASK_QUEUE_TYPE_ACTIVITY, 5, 2)}


def test_activity_that_is_moved_backs_off_as_before() -> None:
    run = _run()
    run.start_activity()
    run.fail_activity()
    run.update_activity("a", _ELSEWHERE, "task_queue")
    assert run.refs == []
    run.advance(1)
    assert [(ref.task_queue, ref.attempt) for ref in run.refs] == [("elsewhere", 3)]


def test_option_that_is_named_and_not_set_is_taken_away() -> None:
    run = _run(heartbeat_timeout=seconds(5))
    run.update_activity("a", _Options(), "heartbeat_timeout")
    assert not run.activity().scheduled.HasField("heartbeat_timeout")


def test_options_that_no_activity_could_have_are_refused() -> None:
    run = _run()
    with pytest.raises(InvalidArgumentError, match="start_to_close_timeout") as refused:
        run.update_activity("a", _Options(), "start_to_close_timeout", "schedule_to_close_timeout")
    assert refused.value.field == "activity_options"
    with pytest.raises(InvalidArgumentError, match="maximum_attempts"):
        run.update_activity(
            "a", _Options(retry_policy=_policy(-1)), "retry_policy.maximum_attempts"
        )


# What people see, and what it takes.


def test_description_shows_what_was_done_by_whom_and_why() -> None:
    run = _run()
    run.pause_activity(reason="broken")
    info = _describe(run)
    assert info.state == workflow_pb2.PENDING_ACTIVITY_STATE_PAUSED
    assert (info.pause_info.identity, info.pause_info.reason) == ("operator", "broken")
    run.reset_activity(identity="other", reason="mended")
    info = _describe(run)
    assert info.state == workflow_pb2.PENDING_ACTIVITY_STATE_SCHEDULED
    assert [(change.type, change.reason) for change in info.changes] == [
        (workflow_pb2.ACTIVITY_CHANGE_TYPE_PAUSED, "broken"),
        (workflow_pb2.ACTIVITY_CHANGE_TYPE_RESET, "mended"),
    ]
    assert info.changes[1].identity == "other"
    assert info.changes[1].time.ToDatetime(run.now.tzinfo) == run.now
    assert info.options.start_to_close_timeout == seconds(10)


def test_changes_that_are_kept_are_bounded_and_counted() -> None:
    run = _run()
    for _ in range(50):
        run.pause_activity()
        run.unpause_activity()
    assert len(run.activity().changes) == 20
    _check_reread(run)
    run.start_activity()
    run.complete_activity()
    run.run_task(complete_workflow())
    assert run.state.held_bytes == 0
