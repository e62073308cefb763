"""Every edge of the machines' tables, and none besides."""

import itertools
from datetime import timedelta

import pytest

from aetheris_client.converter import DataConverter
from aetheris_worker.runtime.commands import CommandLog
from aetheris_worker.runtime.errors import HistoryError
from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.machines import activity, timer
from aetheris_worker.runtime.machines.activity import (
    ActivityCancellationType,
    ActivityInput,
    ActivityMachine,
    ActivityOptions,
    ActivityStage,
)
from aetheris_worker.runtime.machines.timer import TimerInput, TimerMachine, TimerStage
from aetheris_worker.runtime.parts import RunScope
from aetheris_worker.runtime.registry import RUN_MACHINES
from tests.support.history_builder import HistoryBuilder

TIMER_PATHS = {
    TimerStage.STARTING: [],
    TimerStage.WITHDRAWN: [TimerInput.CANCEL],
    TimerStage.STARTED: [TimerInput.START_RECORDED],
    TimerStage.FIRED: [TimerInput.START_RECORDED, TimerInput.FIRE],
    TimerStage.CANCELLING: [TimerInput.START_RECORDED, TimerInput.CANCEL],
    TimerStage.CANCELLED: [
        TimerInput.START_RECORDED,
        TimerInput.CANCEL,
        TimerInput.CANCEL_RECORDED,
    ],
}

ACTIVITY_PATHS = {
    ActivityStage.SCHEDULING: [],
    ActivityStage.WITHDRAWN: [ActivityInput.CANCEL],
    ActivityStage.SCHEDULED: [ActivityInput.SCHEDULE_RECORDED],
    ActivityStage.CANCELLING: [ActivityInput.SCHEDULE_RECORDED, ActivityInput.CANCEL],
    ActivityStage.CANCEL_REQUESTED: [
        ActivityInput.SCHEDULE_RECORDED,
        ActivityInput.CANCEL,
        ActivityInput.CANCEL_RECORDED,
    ],
    ActivityStage.ABANDONED: [ActivityInput.SCHEDULE_RECORDED, ActivityInput.ABANDON],
    ActivityStage.CLOSED: [ActivityInput.SCHEDULE_RECORDED, ActivityInput.CLOSE],
}


@pytest.mark.parametrize("state, cause", list(itertools.product(TimerStage, TimerInput)))
def test_timer_machine_moves_as_its_table_says(state: TimerStage, cause: TimerInput) -> None:
    machine = TimerMachine("1", 5.0, lambda: None, {}, new_log())
    for step in TIMER_PATHS[state]:
        machine.move(step)
    assert machine.state is state
    expected = timer.TRANSITIONS.get((state, cause))
    if expected is None:
        with pytest.raises(HistoryError, match=f"{cause.name} is impossible in state {state.name}"):
            machine.move(cause)
    else:
        machine.move(cause)
        assert machine.state is expected


@pytest.mark.parametrize("state, cause", list(itertools.product(ActivityStage, ActivityInput)))
def test_activity_machine_moves_as_its_table_says(
    state: ActivityStage, cause: ActivityInput
) -> None:
    machine = new_activity(ActivityCancellationType.TRY_CANCEL)
    for step in ACTIVITY_PATHS[state]:
        machine.move(step)
    assert machine.state is state
    expected = activity.TRANSITIONS.get((state, cause))
    if expected is None:
        with pytest.raises(HistoryError, match=f"{cause.name} is impossible in state {state.name}"):
            machine.move(cause)
    else:
        machine.move(cause)
        assert machine.state is expected


def test_activity_that_is_cancelled_twice_asks_once() -> None:
    commands = new_log()
    machine = new_activity(ActivityCancellationType.WAIT_CANCELLATION_COMPLETED, commands)
    history = HistoryBuilder("Flow")
    commands.seal()
    history.activity_scheduled("1", "work")
    commands.match(history.events[-1])
    assert machine.handle.cancel()
    assert machine.handle.cancel()
    assert [command.describe() for command in commands.seal()] == [
        "asked activity '1' of type 'work' (event 2) to cancel"
    ]


def test_schedule_command_carries_every_option() -> None:
    commands = new_log()
    new_activity(ActivityCancellationType.TRY_CANCEL, commands)
    command = commands.seal()[0].to_proto().schedule_activity_task_command_attributes
    assert command.schedule_to_close_timeout.ToTimedelta() == timedelta(days=2, seconds=1)
    assert command.schedule_to_start_timeout.ToTimedelta() == timedelta(milliseconds=1)
    assert not command.HasField("start_to_close_timeout")
    assert command.heartbeat_timeout.ToTimedelta() == timedelta(seconds=3)
    assert command.capabilities == ["gpu"]
    assert command.delivery == 2
    assert command.task_queue.name == "queue"


def new_activity(
    cancellation_type: ActivityCancellationType, commands: CommandLog | None = None
) -> ActivityMachine:
    commands = commands or new_log()
    loop = WorkflowLoop(None, lambda _, __: pytest.fail("no timers here"))
    scope = RunScope(loop, commands, DataConverter.default())
    options = ActivityOptions(
        task_queue="queue",
        schedule_to_close_timeout=timedelta(days=2, seconds=1),
        schedule_to_start_timeout=timedelta(milliseconds=1),
        start_to_close_timeout=None,
        heartbeat_timeout=timedelta(seconds=3),
        retry_policy=None,
        cancellation_type=cancellation_type,
        capabilities=["gpu"],
        at_most_once=True,
    )
    return ActivityMachine("1", "work", None, options, None, scope, {})


def new_log() -> CommandLog:
    return CommandLog(RUN_MACHINES.describe)
