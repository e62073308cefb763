"""Code that changed between two replays."""

import asyncio
from datetime import timedelta

import pytest

from aetheris.api.v1.history_pb2 import EventType
from aetheris_worker import workflow
from aetheris_worker.runtime.errors import NondeterminismError
from tests.support.history_builder import HistoryBuilder
from tests.unit.worker.driver import machine_of

MINUTE = timedelta(minutes=1)


@workflow.defn(name="Flow")
class Recorded:
    """What the history was recorded with."""

    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("pay", start_to_close_timeout=MINUTE)
        await workflow.sleep(5)


@workflow.defn(name="Flow")
class ActivityRenamed:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("charge", start_to_close_timeout=MINUTE)
        await workflow.sleep(5)


@workflow.defn(name="Flow")
class OrderSwapped:
    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(5)
        await workflow.execute_activity("pay", start_to_close_timeout=MINUTE)


@workflow.defn(name="Flow")
class ActivityRemoved:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


@workflow.defn(name="Flow")
class TimerRemoved:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("pay", start_to_close_timeout=MINUTE)


@workflow.defn(name="Flow")
class ActivityAdded:
    @workflow.run
    async def run(self) -> None:
        await asyncio.gather(
            workflow.execute_activity("pay", start_to_close_timeout=MINUTE),
            workflow.execute_activity("log", start_to_close_timeout=MINUTE),
        )
        await workflow.sleep(5)


@workflow.defn(name="Flow")
class ActivityIdChanged:
    @workflow.run
    async def run(self) -> None:
        await workflow.execute_activity("pay", activity_id="mine", start_to_close_timeout=MINUTE)
        await workflow.sleep(5)


def recorded_history() -> HistoryBuilder:
    history = HistoryBuilder("Flow")
    history.task()
    scheduled = history.activity_scheduled("1", "pay")
    history.activity_completed(scheduled)
    history.task()
    history.timer_started("1")
    history.timer_fired("1")
    history.task_started()
    return history


def test_unchanged_code_replays() -> None:
    machine_of(Recorded).advance(recorded_history().events)


@pytest.mark.parametrize(
    "changed, event_id, event_type, recorded, produced",
    [
        (
            ActivityRenamed,
            5,
            "ACTIVITY_TASK_SCHEDULED",
            "activity '1' of type 'pay'",
            "scheduled activity '1' of type 'charge'",
        ),
        (
            ActivityIdChanged,
            5,
            "ACTIVITY_TASK_SCHEDULED",
            "activity '1' of type 'pay'",
            "scheduled activity 'mine' of type 'pay'",
        ),
        (
            OrderSwapped,
            5,
            "ACTIVITY_TASK_SCHEDULED",
            "activity '1' of type 'pay'",
            "started timer '1'",
        ),
        (
            ActivityRemoved,
            5,
            "ACTIVITY_TASK_SCHEDULED",
            "activity '1' of type 'pay'",
            "did nothing here",
        ),
        (TimerRemoved, 11, "TIMER_STARTED", "the start of timer '1'", "completed the run"),
        (
            ActivityAdded,
            6,
            "ACTIVITY_TASK_STARTED",
            "activity task started",
            "scheduled activity '2' of type 'log'",
        ),
    ],
)
def test_changed_code_is_told_apart_with_event_and_both_sides(
    changed: type, event_id: int, event_type: str, recorded: str, produced: str
) -> None:
    with pytest.raises(NondeterminismError) as caught:
        machine_of(changed).advance(recorded_history().events)
    error = caught.value
    assert (error.event_id, error.event_type) == (event_id, event_type)
    assert (error.recorded, error.produced) == (recorded, produced)
    assert str(error) == (
        f"nondeterminism at event {event_id} ({event_type}): history has {recorded}; "
        f"the code {produced}"
    )


def test_command_behind_the_end_of_the_history_is_told() -> None:
    history = HistoryBuilder("Flow")
    history.task()
    with pytest.raises(NondeterminismError, match="the end of the history: history has nothing"):
        machine_of(Recorded).advance(history.events)


def test_command_behind_the_end_is_allowed_where_the_end_is_not_the_whole() -> None:
    history = HistoryBuilder("Flow")
    history.task()
    assert machine_of(Recorded).advance(history.events, is_whole=False) == ()


def test_marker_that_the_code_does_not_give_is_told() -> None:
    history = HistoryBuilder("Flow")
    history.task()
    history.add(EventType.EVENT_TYPE_MARKER_RECORDED)
    history.task_started()
    with pytest.raises(NondeterminismError, match="marker ''; the code scheduled activity"):
        machine_of(Recorded).advance(history.events)


def test_code_that_ends_where_the_history_goes_on_is_told() -> None:
    @workflow.defn(name="Flow")
    class EndsEarly:
        @workflow.run
        async def run(self) -> None:
            return

    with pytest.raises(NondeterminismError, match="the code completed the run"):
        machine_of(EndsEarly).advance(recorded_history().events)


def test_code_that_fails_where_the_history_completed_is_told() -> None:
    @workflow.defn(name="Flow")
    class Fails:
        @workflow.run
        async def run(self) -> None:
            raise TimeoutError("late")

    history = HistoryBuilder("Flow")
    history.task()
    history.add(EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED)
    with pytest.raises(
        NondeterminismError, match=r"completion of the run; the code failed the run"
    ):
        machine_of(Fails).advance(history.events)
