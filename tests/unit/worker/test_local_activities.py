"""Local activities in the runtime: what the code sees, and what replay makes of the markers."""

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest

from aetheris.api.v1.command_pb2 import Command
from aetheris_client.converter import DataConverter
from aetheris_client.errors import ActivityError
from aetheris_client.failure import to_failure
from aetheris_worker import activity, workflow
from aetheris_worker.runtime.commands import CommandLog
from aetheris_worker.runtime.errors import HistoryError, NondeterminismError, ReadOnlyError
from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.machines import local_activity
from aetheris_worker.runtime.machines.local_activity import (
    LocalActivities,
    LocalActivityInput,
    LocalActivityOutcome,
    LocalActivityStage,
    Outcome,
)
from aetheris_worker.runtime.parts import RunScope
from aetheris_worker.runtime.registry import RUN_MACHINES
from aetheris_worker.runtime.replay import RunMachine
from aetheris_worker.workflow import ActivityCancellationType
from tests.support.history_builder import HistoryBuilder
from tests.unit.worker.driver import Session, machine_of

SHORT = timedelta(seconds=5)

PATHS = {
    LocalActivityStage.STARTING: [],
    LocalActivityStage.WITHDRAWN: [LocalActivityInput.CANCEL],
    LocalActivityStage.RUNNING: [LocalActivityInput.RUN],
    LocalActivityStage.CANCEL_REQUESTED: [LocalActivityInput.RUN, LocalActivityInput.CANCEL],
    LocalActivityStage.LET_GO: [LocalActivityInput.RUN, LocalActivityInput.LET_GO],
    LocalActivityStage.BACKING_OFF: [LocalActivityInput.RUN, LocalActivityInput.BACK_OFF],
    LocalActivityStage.CLOSED: [LocalActivityInput.RUN, LocalActivityInput.CLOSE],
}


@pytest.mark.parametrize(
    "state, cause", list(itertools.product(LocalActivityStage, LocalActivityInput))
)
def test_local_activity_machine_moves_as_its_table_says(
    state: LocalActivityStage, cause: LocalActivityInput
) -> None:
    loop = WorkflowLoop(None, lambda _, __: pytest.fail("no timers here"))
    scope = RunScope(loop, CommandLog(RUN_MACHINES.describe), DataConverter.default())
    part = LocalActivities(scope)
    options = local_activity.LocalActivityOptions(
        SHORT, None, None, None, SHORT, ActivityCancellationType.TRY_CANCEL
    )
    part.start("work", (), options, None, (), None)
    machine = part.open[1]
    for step in PATHS[state]:
        machine.move(step)
    assert machine.state is state
    expected = local_activity.TRANSITIONS.get((state, cause))
    if expected is None:
        with pytest.raises(HistoryError, match=f"{cause.name} is impossible in state {state.name}"):
            machine.move(cause)
    else:
        machine.move(cause)
        assert machine.state is expected


@activity.defn
async def work(name: str) -> str:
    return name


class LocalSession(Session):
    """One whose worker runs nothing: the test says what came of each local activity."""

    def step_with(self, *outcomes: LocalActivityOutcome) -> list[str]:
        """A task on the cached run, completed with its commands and these outcomes."""
        self.history.task_started()
        events = self.history.after(self.machine.started_event_id)
        commands = [command.to_proto() for command in self.machine.advance(events)]
        self.history.task_completed([*commands, *(o.to_command() for o in outcomes)])
        return wanted(self.machine)

    def end(self, number: int, **fields: Any) -> LocalActivityOutcome:
        """What came of the one of that number."""
        return outcome_of(self.machine, number, **fields)


def wanted(machine: RunMachine) -> list[str]:
    local = machine.local_activities
    requests = () if local is None else local.requests()
    return [f"{r.number} {r.activity_type} attempt {r.attempt}" for r in requests]


def outcome_of(machine: RunMachine, number: int, **fields: Any) -> LocalActivityOutcome:
    local = machine.local_activities
    assert local is not None
    (request,) = [r for r in local.requests() if r.number == number]
    result = fields.pop("result", None)
    if result is not None:
        fields["result"] = DataConverter.default().to_payloads([result])
    fields.setdefault("outcome", Outcome.COMPLETED)
    return LocalActivityOutcome(request, fields.pop("attempt", request.attempt), **fields)


def complete(machine: RunMachine, history: HistoryBuilder, number: int, result: object) -> None:
    """The task in hand is completed with the result alone."""
    history.task_completed([outcome_of(machine, number, result=result).to_command()])


@workflow.defn
class Two:
    @workflow.run
    async def run(self) -> list[str]:
        names = await asyncio.gather(
            *(
                workflow.execute_local_activity(work, name, start_to_close_timeout=SHORT)
                for name in "ab"
            )
        )
        names.append(await workflow.execute_local_activity(work, "c", start_to_close_timeout=SHORT))
        return names


def run_two() -> LocalSession:
    session = LocalSession(Two)
    session.history.task_started()
    events = session.history.after(session.machine.started_event_id)
    assert list(session.machine.advance(events)) == []
    assert wanted(session.machine) == ["1 work attempt 1", "2 work attempt 1"]
    complete(session.machine, session.history, 2, "B")
    return session


def test_code_goes_on_when_the_marker_is_in_its_history() -> None:
    session = run_two()
    session.history.task_started()
    session.machine.advance(session.history.after(session.machine.started_event_id))
    assert wanted(session.machine) == ["1 work attempt 1"]
    complete(session.machine, session.history, 1, "A")
    session.history.task_started()
    session.machine.advance(session.history.after(session.machine.started_event_id))
    assert wanted(session.machine) == ["3 work attempt 1"]
    complete(session.machine, session.history, 3, "C")
    assert session.step() == ["complete"]
    assert session.result() == ["A", "B", "C"]
    assert session.result_of(session.replay()) == ["A", "B", "C"]


def test_replay_has_run_again_what_has_no_marker() -> None:
    session = run_two()
    session.history.task_started()
    machine = machine_of(Two)
    machine.advance(session.history.events)
    assert wanted(machine) == ["1 work attempt 1"]


def test_marker_of_local_activity_that_the_code_does_not_start_is_told() -> None:
    @workflow.defn(name="Two")
    class Other:
        @workflow.run
        async def run(self) -> None:
            await workflow.execute_local_activity(work, "a", start_to_close_timeout=SHORT)

    session = run_two()
    session.history.task_started()
    with pytest.raises(
        NondeterminismError,
        match=r"event 5 .MARKER_RECORDED.: history has what came of local activity '2' of type "
        "'work'; the code has no such local activity open",
    ):
        machine_of(Other).advance(session.history.events)


def test_marker_of_another_type_is_told() -> None:
    @activity.defn
    async def other(name: str) -> str:
        return name

    @workflow.defn(name="Two")
    class Renamed:
        @workflow.run
        async def run(self) -> None:
            first = workflow.start_local_activity(other, "a", start_to_close_timeout=SHORT)
            second = workflow.start_local_activity(other, "b", start_to_close_timeout=SHORT)
            await asyncio.gather(first, second)

    session = run_two()
    session.history.task_started()
    with pytest.raises(
        NondeterminismError, match="the code started local activity '2' of type 'other'"
    ):
        machine_of(Renamed).advance(session.history.events)


def test_failure_reaches_the_code_with_its_cause() -> None:
    @workflow.defn
    class Fails:
        @workflow.run
        async def run(self) -> str:
            with pytest.raises(ActivityError) as caught:
                await workflow.execute_local_activity("work", start_to_close_timeout=SHORT)
            return f"{caught.value}: {caught.value.__cause__}"

    session = LocalSession(Fails)
    session.history.task_started()
    session.machine.advance(session.history.events)
    failure = to_failure(RuntimeError("broken"), DataConverter.default())
    outcome = session.end(1, outcome=Outcome.FAILED, failure=failure)
    session.history.task_completed([outcome.to_command()])
    assert session.step() == ["complete"]
    assert "broken" in cast(str, session.result())
    assert session.result_of(session.replay()) == session.result()


def test_long_wait_is_a_timer_of_the_run() -> None:
    @workflow.defn
    class Waits:
        @workflow.run
        async def run(self) -> str:
            return await workflow.execute_local_activity(work, "a", start_to_close_timeout=SHORT)

    session = LocalSession(Waits)
    session.history.task_started()
    session.machine.advance(session.history.events)
    failure = to_failure(RuntimeError("broken"), DataConverter.default())
    outcome = session.end(1, outcome=Outcome.BACKING_OFF, failure=failure, backoff=90.0, attempt=3)
    session.history.task_completed([outcome.to_command()])
    assert session.step() == ["timer 1 90s"]
    assert wanted(session.machine) == []
    session.history.timer_fired("1")
    session.history.task_started()
    session.machine.advance(session.history.after(session.machine.started_event_id))
    assert wanted(session.machine) == ["1 work attempt 4"]
    complete(session.machine, session.history, 1, "done")
    assert session.step() == ["complete"]
    assert session.result_of(session.replay()) == "done"


@workflow.defn
class CancelsAtOnce:
    @workflow.run
    async def run(self, how: ActivityCancellationType) -> None:
        handle = workflow.start_local_activity(
            work, "a", start_to_close_timeout=SHORT, cancellation_type=how
        )
        handle.cancel()


@pytest.mark.parametrize("how", list(ActivityCancellationType))
def test_local_activity_cancelled_where_it_is_started_never_runs(
    how: ActivityCancellationType,
) -> None:
    session = LocalSession(CancelsAtOnce, how)
    assert session.step_with() == []


@workflow.defn
class CancelsLater:
    def __init__(self) -> None:
        self.is_over = False

    @workflow.run
    async def run(self, how: ActivityCancellationType) -> str:
        handle = workflow.start_local_activity(
            work, "a", start_to_close_timeout=SHORT, cancellation_type=how
        )
        await workflow.sleep(1)
        handle.cancel()
        try:
            return await handle
        except asyncio.CancelledError:
            await workflow.wait_condition(lambda: self.is_over)
            return "cancelled"


@pytest.mark.parametrize(
    "how, open_, asked, abandoned",
    [
        (ActivityCancellationType.TRY_CANCEL, [], set[int](), set[int]()),
        (ActivityCancellationType.ABANDON, [], set[int](), {1}),
        (
            ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            ["1 work attempt 1"],
            {1},
            set[int](),
        ),
    ],
)
def test_cancelled_local_activity_is_stopped_abandoned_or_awaited(
    how: ActivityCancellationType, open_: Sequence[str], asked: set[int], abandoned: set[int]
) -> None:
    session = LocalSession(CancelsLater, how)
    session.step_with()
    session.history.timer_fired("1")
    assert session.step_with() == open_
    local = session.machine.local_activities
    assert local is not None
    assert local.cancel_requested() == asked
    assert local.abandoned == abandoned


def test_local_activity_that_completes_in_spite_of_its_cancellation_gives_its_result() -> None:
    how = ActivityCancellationType.WAIT_CANCELLATION_COMPLETED
    session = LocalSession(CancelsLater, how)
    session.step_with()
    session.history.timer_fired("1")
    session.history.task_started()
    session.machine.advance(session.history.after(session.machine.started_event_id))
    complete(session.machine, session.history, 1, "done")
    assert session.step() == ["complete"]
    assert session.result() == "done"


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "expected start_to_close_timeout or schedule_to_close_timeout"),
        ({"start_to_close_timeout": timedelta(0)}, "expected more than zero"),
        ({"start_to_close_timeout": SHORT, "retry_policy": 3}, "expected a RetryPolicy"),
        ({"start_to_close_timeout": SHORT, "at_most_once": True}, "at_most_once"),
        ({"start_to_close_timeout": SHORT, "heartbeat_timeout": SHORT}, "heartbeat_timeout"),
        ({"start_to_close_timeout": SHORT, "task_queue": "q"}, "task_queue"),
    ],
)
def test_bad_option_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    @workflow.defn
    class Bad:
        @workflow.run
        async def run(self) -> None:
            await workflow.execute_local_activity("work", **options)

    with pytest.raises((TypeError, ValueError), match=message):
        Session(Bad).step()


def test_local_activity_in_a_query_is_refused() -> None:
    @workflow.defn
    class Asked:
        @workflow.run
        async def run(self) -> None:
            await workflow.sleep(1)

        @workflow.query
        def ask(self) -> None:
            workflow.start_local_activity("work", start_to_close_timeout=SHORT)

    session = Session(Asked)
    session.step()
    with pytest.raises(ReadOnlyError):
        session.ask("ask")


def test_marker_with_an_unknown_outcome_is_no_history() -> None:
    session = run_two()
    marker = session.history.events[-1].marker_recorded_event_attributes
    data = marker.details["data"].payloads[0]
    data.data = data.data.replace(b"completed", b"vanished")
    session.history.task_started()
    with pytest.raises(HistoryError, match="the marker 'local_activity' cannot be read"):
        machine_of(Two).advance(session.history.events)


def test_marker_carries_what_people_look_for() -> None:
    session = run_two()
    command: Command = session.end(1, result="A").to_command()
    data = command.record_marker_command_attributes.details["data"].payloads[0].data
    assert b'"activity_type": "work"' in data
    assert b'"activity_id": "1"' in data
    assert b'"attempt": 1' in data
