"""Random programs in random worlds: cached and replayed runs always give the same commands."""

import asyncio
from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aetheris.api.v1.history_pb2 import EventType
from aetheris_client.errors import ActivityError
from aetheris_worker import workflow
from aetheris_worker.workflow import ActivityCancellationType
from tests.unit.worker.driver import Session, evict_all, machine_of, summary

MINUTE = timedelta(minutes=1)
MAX_TASKS = 25

STEPS = st.recursive(
    st.sampled_from(["activity", "sleep", "signal", "chance", "cancel", "wait_cancel", "abandon"]),
    lambda inner: st.tuples(
        st.sampled_from(["gather", "timeout", "shield", "group"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=8,
)
CANCELS = {
    "cancel": ActivityCancellationType.TRY_CANCEL,
    "wait_cancel": ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
    "abandon": ActivityCancellationType.ABANDON,
}


@workflow.defn
class Program:
    """Does what its argument says."""

    def __init__(self) -> None:
        self.signals = 0

    @workflow.signal
    def poke(self) -> None:
        self.signals += 1

    @workflow.signal
    async def work(self) -> None:
        await self.step("activity")

    @workflow.run
    async def run(self, steps: list[Any]) -> int:
        for step in steps:
            try:
                await self.step(step)
            except (ActivityError, TimeoutError, ExceptionGroup):
                continue
        return self.signals

    async def step(self, step: Any) -> None:  # noqa: C901 - one case for each step
        match step:
            case "activity":
                await workflow.execute_activity("work", start_to_close_timeout=MINUTE)
            case "sleep":
                await workflow.sleep(1 + workflow.random().randrange(3))
            case "signal":
                seen = self.signals
                await workflow.wait_condition(lambda: self.signals > seen, timeout=5)
            case "chance":
                if workflow.random().random() < 0.5:
                    await workflow.execute_activity("lucky", start_to_close_timeout=MINUTE)
            case "cancel" | "wait_cancel" | "abandon":
                handle = workflow.start_activity(
                    "work", start_to_close_timeout=MINUTE, cancellation_type=CANCELS[step]
                )
                await asyncio.wait([handle], timeout=workflow.random().randrange(2))
                handle.cancel()
                try:
                    await handle
                except asyncio.CancelledError:
                    if not handle.cancelled():
                        raise
            case ["gather", inner]:
                await asyncio.gather(*map(self.step, inner))
            case ["timeout", inner]:
                async with asyncio.timeout(2):
                    for one in inner:
                        await self.step(one)
            case ["shield", inner]:
                await asyncio.shield(self.step(inner[0]))
            case ["group", inner]:
                async with asyncio.TaskGroup() as group:
                    for one in inner:
                        group.create_task(self.step(one))
            case _:
                raise NotImplementedError(step)


class World:
    """What the server and the activities do, as hypothesis draws it."""

    def __init__(self, session: Session, draw: Any) -> None:
        self.session = session
        self.draw = draw

    def happen(self) -> None:
        """Between one and three things."""
        for _ in range(self.draw(st.integers(1, 3))):
            self.session_event(self.draw(st.sampled_from(self.possible())))

    def possible(self) -> list[tuple[str, Any]]:
        activities, timers = open_things(self.session)
        things: list[tuple[str, Any]] = [("poke", None), ("work", None), ("failed task", None)]
        things += [(kind, key) for key in activities for kind in ("complete", "fail", "time out")]
        things += [("fire", key) for key in timers]
        if not any(e.event_type == 20 for e in self.session.history.events):
            things.append(("cancel run", None))
        return things

    def session_event(self, thing: tuple[str, Any]) -> None:
        history = self.session.history
        match thing:
            case ("complete", key):
                history.activity_completed(key)
            case ("fail", key):
                history.activity_failed(key)
            case ("time out", key):
                history.activity_timed_out(key)
            case ("fire", key):
                history.timer_fired(key)
            case ("poke" | "work" as name, _):
                history.signaled(name)
            case ("cancel run", _):
                history.cancel_requested()
            case _:
                history.task_started()
                history.task_failed()


def open_things(session: Session) -> tuple[list[int], list[str]]:
    activities: dict[int, None] = {}
    timers: dict[str, None] = {}
    for event in session.history.events:
        match event.event_type:
            case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                activities[event.event_id] = None
            case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
                activities.pop(event.activity_task_started_event_attributes.scheduled_event_id)
            case EventType.EVENT_TYPE_TIMER_STARTED:
                timers[event.timer_started_event_attributes.timer_id] = None
            case EventType.EVENT_TYPE_TIMER_FIRED:
                timers.pop(event.timer_fired_event_attributes.timer_id)
            case EventType.EVENT_TYPE_TIMER_CANCELLED:
                timers.pop(event.timer_cancelled_event_attributes.timer_id)
            case _:
                pass
    return list(activities), list(timers)


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=4), data=st.data())
def test_cached_and_replayed_runs_give_the_same_commands(steps: list[Any], data: Any) -> None:
    session = Session(Program, steps)
    world = World(session, data.draw)
    decided: list[tuple[int, list[str]]] = []
    try:
        for _ in range(MAX_TASKS):
            commands = session.step()
            decided.append((session.machine.started_event_id, commands))
            if session.machine.is_closed:
                break
            world.happen()
        for started_event_id, commands in decided:
            assert replayed_commands(session, started_event_id) == commands
        again = data.draw(st.sampled_from(decided))[0]
        assert continued_commands(session, again) == [
            commands for started_event_id, commands in decided if started_event_id > again
        ]
    finally:
        evict_all()


def replayed_commands(session: Session, started_event_id: int) -> list[str]:
    """What a worker without the run in its cache decides in the task of this start."""
    machine = machine_of(Program)
    commands = machine.advance(session.history.events[:started_event_id])
    return [summary(command.to_proto()) for command in commands]


def continued_commands(session: Session, started_event_id: int) -> list[list[str]]:
    """What a worker decides that replays up to this start, and has the run cached from there."""
    machine = machine_of(Program)
    events = session.history.events
    machine.advance(events[:started_event_id])
    decided: list[list[str]] = []
    for event in events[started_event_id:]:
        completed = event.workflow_task_completed_event_attributes
        if not event.HasField("workflow_task_completed_event_attributes"):
            continue
        until = completed.started_event_id
        if until <= started_event_id:
            continue
        commands = machine.advance(events[machine.started_event_id : until])
        decided.append([summary(command.to_proto()) for command in commands])
    return decided
