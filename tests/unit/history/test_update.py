"""Updates in the core: what their commands come to, and what a speculative workflow task leaves."""

import itertools
from collections.abc import Callable

import pytest

from aetheris.api.v1 import command_pb2, history_pb2, workflow_service_pb2
from aetheris_server.errors import (
    TaskNotFoundError,
    UpdateLimitError,
    WorkflowClosedError,
    WorkflowNotReadyError,
)
from aetheris_server.history.state.inflight import Sticky
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.update import MACHINE
from aetheris_server.history.state.machines.update.admitting import (
    check_admittable,
    needs_speculative_task,
)
from aetheris_server.history.state.machines.update.values import Updates, find_update
from aetheris_server.history.state.machines.workflow_task import ending
from aetheris_server.history.state.machines.workflow_task.tasks import STICKY_TIMEOUT
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.runs import (
    KEY,
    RunDriver,
    accept_update,
    complete_update,
    complete_workflow,
    schedule_activity,
    start_timer,
    update,
)

ACCEPTED = "WORKFLOW_EXECUTION_UPDATE_ACCEPTED"
COMPLETED = "WORKFLOW_EXECUTION_UPDATE_COMPLETED"
TASK = ["WORKFLOW_TASK_SCHEDULED", "WORKFLOW_TASK_STARTED", "WORKFLOW_TASK_COMPLETED"]

NONE, BROUGHT, OPEN, DONE = "none", "brought", "open", "completed"
STATES: dict[str, Callable[[RunDriver], object]] = {
    NONE: lambda run: run.start_speculative_task(update("other")),
    BROUGHT: lambda run: run.start_speculative_task(update()),
    OPEN: lambda run: (
        run.start_speculative_task(update()),
        run.complete_task(accept_update()),
        run.start_speculative_task(update("other")),
    ),
    DONE: lambda run: (
        run.start_speculative_task(update()),
        run.complete_task(accept_update(), complete_update()),
        run.start_speculative_task(update("other")),
    ),
}
INPUTS: dict[str, Callable[[], command_pb2.Command]] = {
    "accept": accept_update,
    "complete": complete_update,
}
TAKEN = {(BROUGHT, "accept"): ACCEPTED, (OPEN, "complete"): COMPLETED}


def idle_run(limits: RunLimits | None = None) -> RunDriver:
    """One that waits for a timer."""
    run = RunDriver(limits)
    run.run_task(start_timer(timeout=600))
    return run


@pytest.mark.parametrize("state, step", list(itertools.product(STATES, INPUTS)))
def test_step_of_an_update_is_taken_in_its_state_alone(state: str, step: str) -> None:
    run = idle_run()
    STATES[state](run)
    decision = run.complete_task(INPUTS[step]())
    expected = TAKEN.get((state, step))
    if expected is not None:
        assert decision.refused is None
        assert run.names(1) == [expected]
        return
    assert decision.refused is not None
    assert decision.refused.command_index == 0
    assert decision.refused.cause == (
        history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_UPDATE_WORKFLOW_EXECUTION_MESSAGE
    )
    assert decision.refused.field == "commands[0].message_id"
    assert run.names(1) == ["WORKFLOW_TASK_FAILED"]


@pytest.mark.parametrize(
    "commands",
    [
        [accept_update(), accept_update()],
        [accept_update(), complete_update(), complete_update()],
        [complete_update(), accept_update()],
    ],
)
def test_steps_of_one_decision_follow_each_other_as_well(
    commands: list[command_pb2.Command],
) -> None:
    run = idle_run()
    run.start_speculative_task(update())
    assert run.complete_task(*commands).refused is not None


def test_step_without_content_is_refused() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    command = command_pb2.Command(command_type=command_pb2.COMMAND_TYPE_PROTOCOL_MESSAGE)
    command.protocol_message_command_attributes.message_id = "u1"
    refused = run.complete_task(command).refused
    assert refused is not None
    assert str(refused).startswith("commands[0]: step: expected")
    run.start_task(updates=[update()])
    command.protocol_message_command_attributes.outcome.SetInParent()
    refused = run.complete_task(accept_update(), command).refused
    assert refused is not None
    assert str(refused).startswith("commands[1].outcome: expected")


def test_accepted_update_has_its_request_and_where_it_was_seen() -> None:
    run = idle_run()
    started = run.start_speculative_task(update())
    before = run.state.next_event_id
    run.complete_task(accept_update(), complete_update())
    assert run.names(5) == [*TASK, ACCEPTED, COMPLETED]
    accepted = run.last_event(ACCEPTED).workflow_execution_update_accepted_event_attributes
    assert accepted.accepted_request == update()
    assert accepted.accepted_request_sequencing_event_id == started.started_event.event_id - 1
    assert started.started_event.event_id == before + 1
    completed = run.last_event(COMPLETED).workflow_execution_update_completed_event_attributes
    assert completed.accepted_event_id == run.last_event(ACCEPTED).event_id
    assert find_update(run.fold(), "u1") == find_update(run.state, "u1")


def test_speculative_task_that_is_given_up_leaves_nothing() -> None:
    run = idle_run()
    stored = list(run.stored)
    run.start_speculative_task(update())
    run.inflight.workflow_task = None
    assert ending.decide_flush(run.state, run.inflight, run.now) is None
    assert run.stored == stored
    assert run.state.next_event_id == len(run.history) + 1


def test_signal_beside_a_discarded_task_gets_a_task_of_its_own() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    run.signal()
    run.inflight.workflow_task = None
    record = ending.decide_flush(run.state, run.inflight, run.now)
    assert record is not None
    run.commit(record)
    assert run.names(2) == ["WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_TASK_SCHEDULED"]
    assert run.state.workflow_task is not None


def test_signal_beside_an_accepted_update_follows_it() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    run.signal()
    run.complete_task(accept_update(), complete_update())
    assert run.names(7) == [
        *TASK,
        ACCEPTED,
        COMPLETED,
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_TASK_SCHEDULED",
    ]


def test_host_that_is_lost_forgets_the_task_and_keeps_what_was_buffered() -> None:
    run = idle_run()
    started = run.start_speculative_task(update())
    run.signal()
    run.lose_host()
    assert run.names(2) == ["WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_TASK_SCHEDULED"]
    with pytest.raises(TaskNotFoundError):
        run.complete_task(accept_update(), start_id=started.start_id)


def test_speculative_task_that_fails_is_written_and_tried_again_with_its_updates() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    run.fail_task()
    assert run.names(3) == [
        "WORKFLOW_TASK_SCHEDULED",
        "WORKFLOW_TASK_STARTED",
        "WORKFLOW_TASK_FAILED",
    ]
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 2
    run.start_task(updates=[update()])
    run.complete_task(accept_update())
    assert run.names(4) == [*TASK, ACCEPTED]


def test_speculative_task_that_times_out_is_written_and_tried_again() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    run.advance(11)
    assert run.names(1) == ["WORKFLOW_TASK_TIMED_OUT"]
    assert run.state.workflow_task is not None
    assert run.state.workflow_task.attempt == 2


def test_terminated_run_says_nothing_of_a_speculative_task() -> None:
    run = idle_run()
    length = len(run.history)
    run.start_speculative_task(update())
    run.signal()
    run.terminate()
    assert run.names(len(run.history) - length) == [
        "WORKFLOW_EXECUTION_SIGNALED",
        "WORKFLOW_EXECUTION_TERMINATED",
    ]


def test_worker_that_accepts_keeps_the_run_cached() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    sticky = Sticky("sticky", STICKY_TIMEOUT)
    run.inflight.sticky = sticky
    run.complete_task(accept_update())
    assert run.inflight.sticky is sticky
    assert run.inflight.workflow_task is None


def test_update_in_a_task_that_closes_the_run_stays_open_for_ever() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    run.complete_task(accept_update(), complete_workflow())
    assert run.names(2) == [ACCEPTED, "WORKFLOW_EXECUTION_COMPLETED"]
    updates = run.state.parts.find(Updates)
    assert updates is not None
    assert list(updates.open) == ["u1"]


def test_snapshot_has_all_updates() -> None:
    run = idle_run()
    run.start_speculative_task(update("u1"), update("u2"))
    run.complete_task(accept_update("u1"), complete_update("u1"), accept_update("u2"))
    loaded = from_snapshot(KEY, run.state.run_seq, run.state.hash, to_snapshot(run.state))
    assert loaded.parts == run.state.parts
    assert loaded.held_bytes == run.state.held_bytes


def test_run_without_updates_has_no_part_of_them() -> None:
    run = idle_run()
    assert run.state.parts.find(Updates) is None
    assert MACHINE.save_part is not None
    assert MACHINE.save_part(run.state) is None


def test_run_takes_no_more_updates_than_it_may() -> None:
    run = idle_run(RunLimits(max_open_updates=3, max_updates=4))
    run.start_speculative_task(update("u1"), update("u2"))
    run.complete_task(accept_update("u1"), accept_update("u2"))
    check_admittable(run.state, [], run.limits)
    with pytest.raises(UpdateLimitError, match="3 updates without an outcome"):
        check_admittable(run.state, ["u3"], run.limits)
    run.start_speculative_task(update("u3"), update("u4"))
    run.complete_task(
        complete_update("u1"), complete_update("u2"), accept_update("u3"), accept_update("u4")
    )
    with pytest.raises(UpdateLimitError, match="4 updates in all"):
        check_admittable(run.state, [], run.limits)


def test_task_of_a_run_with_many_updates_suggests_to_continue_as_new() -> None:
    run = idle_run(RunLimits(max_updates=10))
    ids = [f"u{number}" for number in range(9)]
    started = run.start_speculative_task(*map(update, ids))
    attributes = started.started_event.workflow_task_started_event_attributes
    assert not attributes.suggest_continue_as_new
    run.complete_task(*map(accept_update, ids))
    started = run.start_speculative_task(update())
    attributes = started.started_event.workflow_task_started_event_attributes
    assert attributes.suggest_continue_as_new


def test_closed_run_and_one_whose_code_fails_take_no_update() -> None:
    run = idle_run()
    run.signal()
    for _ in range(3):
        run.start_task()
        run.fail_task()
        run.advance(60)
    with pytest.raises(WorkflowNotReadyError, match="failed 3 times in a row: oops"):
        check_admittable(run.state, [], run.limits)
    run.terminate()
    with pytest.raises(WorkflowClosedError):
        check_admittable(run.state, [], run.limits)


def test_paused_run_takes_no_update_and_gives_none_out() -> None:
    run = idle_run()
    run.pause()
    with pytest.raises(WorkflowNotReadyError, match="it is paused"):
        check_admittable(run.state, [], run.limits)
    assert not needs_speculative_task(run.state, run.inflight)
    run.unpause()
    assert needs_speculative_task(run.state, run.inflight)


def test_speculative_task_that_is_discarded_in_a_pause_leaves_the_pause_alone() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    run.pause()
    run.inflight.workflow_task = None
    record = ending.decide_flush(run.state, run.inflight, run.now)
    assert record is not None
    run.commit(record)
    assert run.names(1) == ["WORKFLOW_EXECUTION_PAUSED"]
    assert run.state.workflow_task is None


def test_describe_shows_open_updates_until_the_run_closes() -> None:
    run = idle_run()
    run.start_speculative_task(update("u1"), update("u2", "wait"))
    run.complete_task(accept_update("u1"), complete_update("u1"), accept_update("u2"))
    response = workflow_service_pb2.DescribeWorkflowResponse()
    assert MACHINE.describe is not None
    MACHINE.describe(run.state, run.inflight, response)
    [pending] = response.pending_updates
    assert (pending.update_id, pending.name) == ("u2", "wait")
    run.terminate()
    closed = workflow_service_pb2.DescribeWorkflowResponse()
    MACHINE.describe(run.state, run.inflight, closed)
    assert not closed.pending_updates


def test_other_commands_go_along_in_their_place() -> None:
    run = idle_run()
    run.start_speculative_task(update())
    run.complete_task(accept_update(), schedule_activity(), complete_update())
    assert run.names(3) == [ACCEPTED, "ACTIVITY_TASK_SCHEDULED", COMPLETED]
