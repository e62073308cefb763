"""Timeouts and cancellations of asyncio around what a workflow waits for; and how long it may."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from aetheris_client.errors import ActivityError
from aetheris_worker import RetryPolicy, workflow
from aetheris_worker.runtime.machines.timer import Timers
from aetheris_worker.workflow import ActivityCancellationType
from tests.unit.worker.driver import Session

MINUTE = timedelta(minutes=1)


def start(how: str) -> workflow.ActivityHandle:
    return workflow.start_activity(
        "work",
        start_to_close_timeout=MINUTE,
        cancellation_type=ActivityCancellationType[how],
    )


async def under_timeout(how: str) -> None:
    async with asyncio.timeout(5):
        await start(how)


async def under_wait_for(how: str) -> None:
    await asyncio.wait_for(start(how), 5)


async def under_wait_for_of_a_coroutine(how: str) -> None:
    async def wait() -> None:
        await start(how)

    await asyncio.wait_for(wait(), 5)


async def in_a_group_under_timeout(how: str) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(under_wait_for(how))
        await start(how)


async def under_a_scope(how: str) -> None:
    """As anyio's fail_after does it: cancels by hand, and takes its own cancellation back."""
    task = asyncio.current_task()
    assert task is not None
    deadline = asyncio.get_running_loop().call_later(5, task.cancel, "scope")
    try:
        await start(how)
    except asyncio.CancelledError as error:
        if error.args != ("scope",):
            raise
        task.uncancel()
        raise TimeoutError from error
    finally:
        deadline.cancel()


async def under_a_scope_that_pesters(how: str) -> None:
    """As anyio's scopes do it in truth: again and again, until the code has left."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    count, has_left = 0, False

    def deliver(task: asyncio.Task[None]) -> None:
        nonlocal count
        if not has_left:
            count += 1
            task.cancel("scope")
            loop.call_soon(deliver, task)

    deadline = loop.call_later(5, deliver, task)
    try:
        await start(how)
    except asyncio.CancelledError as error:
        if error.args != ("scope",):
            raise
        for _ in range(count):
            task.uncancel()
        raise TimeoutError from error
    finally:
        has_left = True
        deadline.cancel()


@workflow.defn
class Waits:
    """Says what came out of a wait, and of a cancelled task that waits."""

    ways: dict[str, Callable[[str], Awaitable[None]]] = {  # noqa: RUF012 - never changed
        way.__name__: way
        for way in (
            under_timeout,
            under_wait_for,
            under_wait_for_of_a_coroutine,
            in_a_group_under_timeout,
            under_a_scope,
            under_a_scope_that_pesters,
        )
    }

    @workflow.run
    async def run(self, way: str, how: str) -> str:
        try:
            await self.ways[way](how)
        except BaseException as error:  # noqa: BLE001 - what it is about
            return type(error).__name__
        return "nothing"


@pytest.mark.parametrize("way", sorted(Waits.ways))
@pytest.mark.parametrize("how", ["TRY_CANCEL", "ABANDON"])
def test_timeout_around_an_activity_is_a_timeout_error(way: str, how: str) -> None:
    session = Session(Waits, way, how)
    session.step()
    timers = sorted(session.machine.run.parts.make(Timers).open)
    session.history.timer_fired(timers[0])
    while session.step()[-1:] != ["complete"]:
        session.history.timer_fired(timers.pop())
    assert session.result() == "TimeoutError"
    session.replay()


@pytest.mark.parametrize(
    "way",
    [
        "under_timeout",
        "under_a_scope",
        "under_a_scope_that_pesters",
        "under_wait_for_of_a_coroutine",
    ],
)
def test_timeout_around_an_activity_that_is_waited_for_comes_when_it_has_cancelled(
    way: str,
) -> None:
    session = Session(Waits, way, "WAIT_CANCELLATION_COMPLETED")
    session.step()
    session.history.timer_fired("1")
    (cancel,) = session.step()
    assert cancel.startswith("cancel activity")
    session.history.activity_cancelled(int(cancel.rpartition(" ")[2]))
    session.step()
    assert session.result() == "TimeoutError"
    session.replay()


@workflow.defn
class CancelsTask:
    @workflow.run
    async def run(self) -> str:
        async def wait() -> None:
            await workflow.execute_activity("work", start_to_close_timeout=MINUTE)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return "cancelled" if task.cancelled() else "not cancelled"


def test_cancelled_task_that_waits_for_an_activity_is_cancelled() -> None:
    session = Session(CancelsTask)
    session.step()
    assert session.result() == "cancelled"


@workflow.defn
class AwaitsOne:
    @workflow.run
    async def run(self) -> str:
        try:
            await workflow.execute_activity("work", start_to_close_timeout=MINUTE)
        except ActivityError as error:
            return type(error.cause).__name__
        return "completed"


def test_activity_that_cancels_unasked_is_an_activity_error() -> None:
    session = Session(AwaitsOne)
    session.step()
    session.history.activity_cancelled(5)
    session.step()
    assert session.result() == "CancelledError"


@workflow.defn
class WaitsWithoutLimit:
    @workflow.run
    async def run(self, way: str) -> None:
        activity = workflow.start_activity("work", start_to_close_timeout=MINUTE)
        match way:
            case "timeout none":
                async with asyncio.timeout(None):
                    await activity
            case "timeout inf":
                async with asyncio.timeout(math.inf):
                    await activity
            case "timeout moved":
                async with asyncio.timeout(60) as limit:
                    limit.reschedule(math.inf)
                    await activity
            case "wait_for none":
                await asyncio.wait_for(activity, None)
            case "wait_for inf":
                await asyncio.wait_for(activity, math.inf)
            case "condition":
                await workflow.wait_condition(activity.done, timeout=math.inf)
            case _:
                asyncio.get_running_loop().call_at(math.inf, activity.cancel)
                await activity


@pytest.mark.parametrize(
    "way",
    [
        *("timeout none", "timeout inf", "timeout moved"),
        *("wait_for none", "wait_for inf", "condition", "call_at"),
    ],
)
def test_infinite_wait_needs_no_timer(way: str) -> None:
    session = Session(WaitsWithoutLimit, way)
    assert session.step() == ["activity 1 work"]
    session.history.activity_completed(5)
    assert session.step() == ["complete"]
    session.replay()


CENTURY = 36_525 * 86_400.0


@workflow.defn
class AsksForTooLong:
    @workflow.run
    async def run(self, name: str, seconds: float) -> None:
        if name == "timer":
            await asyncio.sleep(seconds)
        if name == "call_at":
            loop = asyncio.get_running_loop()
            loop.call_at(loop.time() + seconds, print)
        options: Any = {"start_to_close_timeout": MINUTE, name: timedelta(seconds=seconds)}
        await workflow.execute_activity("work", **options)


ACTIVITY_TIMEOUTS = [
    "schedule_to_close_timeout",
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "heartbeat_timeout",
]


@pytest.mark.parametrize(
    "name, message",
    [("timer", "timer: 3155760001"), ("call_at", "timer: 3155760001")]
    + [(name, f"{name}: 36525 days, 0:00:01, expected at most") for name in ACTIVITY_TIMEOUTS],
)
def test_duration_beyond_the_maximum_is_refused_with_its_name_and_value(
    name: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Session(AsksForTooLong, name, CENTURY + 1).step()


@pytest.mark.parametrize("name", ACTIVITY_TIMEOUTS)
@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_activity_timeout_of_no_length_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: .*, expected more than zero"):
        Session(AsksForTooLong, name, seconds).step()


def test_the_longest_durations_are_taken() -> None:
    assert Session(AsksForTooLong, "timer", CENTURY).step() == ["timer 1 3.15576e+09s"]
    for name in ACTIVITY_TIMEOUTS:
        assert Session(AsksForTooLong, name, CENTURY).step() == ["activity 1 work"]


@workflow.defn
class SleepsForNothing:
    @workflow.run
    async def run(self) -> None:
        asyncio.get_running_loop().call_later(math.nan, print)


def test_delay_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="timer: nan s"):
        Session(SleepsForNothing).step()


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"initial_interval": timedelta(days=40_000)}, "initial_interval: 40000 days"),
        ({"maximum_interval": timedelta(days=40_000)}, "maximum_interval: 40000 days"),
        ({"backoff_coefficient": math.nan}, "backoff_coefficient: nan"),
        ({"backoff_coefficient": math.inf}, "backoff_coefficient: inf"),
    ],
)
def test_retry_policy_beyond_its_range_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**fields)


@workflow.defn
class Approved:
    """Waits for an approval, not for ever."""

    def __init__(self) -> None:
        self.is_approved = False

    @workflow.signal
    def approve(self) -> None:
        self.is_approved = True

    @workflow.run
    async def run(self) -> bool:
        try:
            await workflow.wait_condition(lambda: self.is_approved, timeout=60)
        except TimeoutError:
            return False
        return True


@pytest.mark.parametrize("approved_first", [True, False])
def test_condition_that_held_before_the_time_was_up_is_no_timeout(approved_first: bool) -> None:
    session = Session(Approved)
    session.step()
    # Both before the worker came to look.
    if approved_first:
        session.history.signaled("approve")
    session.history.timer_fired("1")
    if not approved_first:
        session.history.signaled("approve")
    assert session.step() == ["complete"]
    assert session.result() is approved_first
    session.replay()
