"""The wall clock steps by seconds or hours: nothing is skipped, late or early.

A step back delays nothing that is waited for in memory; a step forward may be time that has passed.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aetheris.api.v1.history_pb2 import EVENT_TYPE_TIMER_FIRED
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.history.engine.wakeups import DUE_HORIZON
from aetheris_server.history.state.run import RunKey
from tests.support.clock import ManualClock
from tests.support.memory_engine import MemoryEngine
from tests.support.runs import schedule_activity, seconds, start_timer

_STEPS = [-3600.0, -600.0, -60.0, -3.0, -1.0, 1.0, 3.0, 60.0, 600.0, 3600.0]


def _step(clock: ManualClock, value: float) -> None:
    clock.set_wall_clock(clock.now() + timedelta(seconds=value))


def _fail_once(bench: MemoryEngine) -> RunKey:
    """A run whose one activity backs off for 2 s before its second attempt."""
    key = bench.start("a")
    policy = {"initial_interval": seconds(2)}
    bench.run_task(key, schedule_activity(retry_policy=policy))
    bench.take_refs()
    bench.start_activity(key, 5)
    bench.fail_activity(key, 5)
    return key


@pytest.mark.parametrize("step", _STEPS)
def test_retry_is_offered_once_when_either_clock_reaches_its_time(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    _fail_once(bench)
    _step(clock, step)
    bench.look()
    offered = len(bench.take_refs())
    assert offered == (step >= 2)
    bench.advance(0.9)
    offered += len(bench.take_refs())
    assert offered == (step >= 1.1)
    bench.advance(1.1)
    offered += len(bench.take_refs())
    assert offered == 1
    bench.advance(2 * 3600)
    assert not bench.take_refs()


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_timer_is_not_delayed_by_a_step_back(clock: ManualClock, step: float) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 5), start_timer("next", 6))
    bench.advance(1)
    _step(clock, step)
    bench.advance(3.9)
    assert len(bench.load(key).state.timers) == 2
    bench.advance(0.1)
    assert list(bench.load(key).state.timers) == ["next"]
    bench.advance(1)
    assert not bench.load(key).state.timers


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_steps_back_one_after_the_other_add_up_to_no_delay(clock: ManualClock, step: float) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 5))
    for _ in range(4):
        _step(clock, step)
        bench.advance(1)
    assert bench.load(key).state.timers
    bench.advance(1)
    assert not bench.load(key).state.timers


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_wait_that_begins_after_a_step_back_is_neither_late_nor_early(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("before", 4000))
    bench.advance(3998)
    _step(clock, step)
    bench.signal(key)
    bench.run_task(key, start_timer("after", 3))
    bench.advance(2)
    assert list(bench.load(key).state.timers) == ["after"]
    bench.advance(1)
    assert not bench.load(key).state.timers


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_step_that_is_taken_back_leaves_no_wait_longer(clock: ManualClock, step: float) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    _step(clock, -step)
    bench.run_task(key, start_timer("t", 5))
    _step(clock, step)
    bench.advance(4.9)
    assert bench.load(key).state.timers
    bench.advance(0.1)
    assert not bench.load(key).state.timers


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_start_delay_and_run_timeout_are_not_delayed_by_a_step_back(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a", start_delay=seconds(5), workflow_run_timeout=seconds(10))
    _step(clock, step)
    bench.advance(5)
    assert bench.load(key).state.workflow_task is not None
    bench.advance(10)
    assert not bench.load(key).state.is_open


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_run_that_leaves_memory_after_a_step_back_is_due_no_later(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 300), start_timer("next", 310))
    _step(clock, step)
    bench.load(key)
    bench.evict(key)
    bench.advance(299)
    assert bench.loads == 0
    bench.advance(1)
    assert list(bench.load(key).state.timers) == ["next"]
    bench.advance(10)
    assert not bench.load(key).state.timers


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_run_loaded_after_a_step_back_waits_no_longer_than_at_its_newest_record(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 300))
    bench.evict(key)
    _step(clock, step)
    bench.load(key)
    bench.advance(300)
    assert not bench.load(key).state.timers


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_wait_that_begins_after_a_step_back_survives_its_host(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    _step(clock, step)
    bench.run_task(key, start_timer("t", 5))
    bench.evict(key)
    # Another host knows of the run by its row alone.
    bench.engine.wakeups._forget(key.run_id)
    bench.schedule_due(DUE_HORIZON)
    for _ in range(10):
        bench.advance(1)
    assert not bench.load(key).state.timers


@pytest.mark.parametrize("step", _STEPS)
def test_times_in_a_history_never_go_back(clock: ManualClock, step: float) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    for _ in range(3):
        bench.run_task(key)
        _step(clock, step)
        bench.evict(key)
        bench.signal(key)
    times = [event.event_time.ToDatetime(UTC) for event in bench.events(key)]
    assert times == sorted(times)


@pytest.mark.parametrize("step", _STEPS)
def test_retry_that_was_offered_is_startable_whatever_the_clock_says(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    _fail_once(bench)
    bench.advance(2)
    _step(clock, step)
    [ref] = bench.take_refs()
    assert bench.is_startable(ref)


@pytest.mark.parametrize("step", [step for step in _STEPS if step < 0])
def test_retry_offered_before_its_run_left_memory_is_offered_again(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = _fail_once(bench)
    bench.advance(2)
    [ref] = bench.take_refs()
    bench.evict(key)
    _step(clock, step)
    if not bench.is_startable(ref):
        bench.advance(-step)
        assert bench.take_refs() == [ref]


@pytest.mark.parametrize("step", _STEPS)
def test_attempt_in_flight_times_out_by_the_clock_for_intervals(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, schedule_activity(start_to_close_timeout=seconds(10)))
    bench.start_activity(key, 5)
    _step(clock, step)
    bench.advance(9.9)
    assert 5 in bench.load(key).inflight.activities
    bench.advance(0.2)
    assert 5 not in bench.load(key).inflight.activities


@pytest.mark.parametrize("step", _STEPS)
def test_workflow_task_times_out_by_the_clock_for_intervals(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.start_task(key)
    _step(clock, step)
    bench.advance(9.9)
    assert bench.load(key).inflight.workflow_task is not None
    bench.advance(0.2)
    assert bench.load(key).inflight.workflow_task is None


@pytest.mark.parametrize("step", _STEPS)
def test_heartbeats_across_a_step_keep_an_attempt(clock: ManualClock, step: float) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    to_close, heartbeat = seconds(100), seconds(2)
    bench.run_task(
        key,
        schedule_activity(start_to_close_timeout=to_close, heartbeat_timeout=heartbeat),
    )
    bench.start_activity(key, 5)
    for _ in range(5):
        bench.advance(1.5)
        bench.heartbeat(key, 5)
        _step(clock, step)
    bench.advance(1.9)
    assert 5 in bench.load(key).inflight.activities
    bench.advance(0.2)
    assert 5 not in bench.load(key).inflight.activities


# Random lives.

_Op = tuple[str, float]
_OPS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.sampled_from(_STEPS)),
        st.tuples(st.just("advance"), st.sampled_from([0.1, 1.0, 5.0, 30.0])),
        st.tuples(
            st.sampled_from(["take", "take", "fail", "fail", "complete", "heartbeat", "evict"]),
            st.integers(0, 5).map(float),
        ),
    ),
    min_size=5,
    max_size=40,
)


class _Life:
    """A run with timers and activities, its worker, and what matching holds for it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.bench = MemoryEngine(self.clock)
        self.key = self.bench.start("a")
        self.bench.take_refs()
        self.held: list[TaskRef] = []
        self.fired: set[int] = set()
        # What is waited for, with the moment when it must come, and the steps forward until then.
        self.awaited: dict[tuple[int, int], tuple[float, int]] = {}
        self.forward_count = 0
        self.seen = 0
        attributes: dict[str, Any] = {
            "start_to_close_timeout": seconds(8),
            "retry_policy": {"initial_interval": seconds(2)},
        }
        self.bench.run_task(
            self.key,
            *(start_timer(f"t{delay}", delay) for delay in (1, 10, 100)),
            schedule_activity("a", **attributes),
            schedule_activity("b", heartbeat_timeout=seconds(3), **attributes),
            schedule_activity("c", schedule_to_start_timeout=seconds(20), **attributes),
            schedule_activity("d", schedule_to_close_timeout=seconds(90), **attributes),
        )
        self.is_whole = True
        for timer in self.bench.load(self.key).state.timers.values():
            self._await((timer.started_event_id, 0), timer.fire_time)
        self.look()

    def _await(self, what: tuple[int, int], time: datetime) -> None:
        left = (time - self.bench.engine.time_of(self.bench.load(self.key))).total_seconds()
        self.awaited[what] = (self.clock.monotonic() + left, self.forward_count)

    def _has_come(self, what: tuple[int, int]) -> None:
        moment, forward_count = self.awaited.pop(what)
        assert self.clock.monotonic() > moment - 1e-6 or forward_count < self.forward_count

    def do(self, name: str, value: float) -> None:
        match name:
            case "step":
                _step(self.clock, value)
                self.forward_count += value > 0
            case "advance":
                self.clock.advance(value)
            case "take":
                if self.held:
                    self._start(self.held.pop(int(value) % len(self.held)))
            case "evict":
                self.bench.evict(self.key)
                # A deadline that is further ahead than rows are looked at follows the wall clock.
                self.is_whole = False
            case _:
                started = sorted(self.bench.load(self.key).inflight.activities)
                if started:
                    act = getattr(self.bench, {"heartbeat": name}.get(name, f"{name}_activity"))
                    act(self.key, started[int(value) % len(started)])
                    self._await_retries()
        self.bench.schedule_due(DUE_HORIZON)
        self.look()

    def _start(self, ref: TaskRef) -> None:
        if not self.bench.is_startable(ref):
            return
        if ref.task_queue_type == TASK_QUEUE_TYPE_ACTIVITY:
            self.bench.start_activity(self.key, ref.scheduled_event_id)
        else:
            self.bench.run_task(self.key)

    def _await_retries(self) -> None:
        run = self.bench.load(self.key)
        for event_id in run.inflight.backing_off:
            activity = run.state.activities[event_id]
            if (event_id, activity.attempt) not in self.awaited:
                self._await((event_id, activity.attempt), activity.attempt_scheduled_time)

    def look(self) -> None:
        """What is due happens; none of it may be early or late, and no timer may fire twice."""
        self.bench.look()
        for ref in self.bench.take_refs():
            if (ref.scheduled_event_id, ref.attempt) in self.awaited:
                self._has_come((ref.scheduled_event_id, ref.attempt))
            self.held.append(ref)
        events = self.bench.events(self.key)
        for event in events[self.seen :]:
            if event.event_type == EVENT_TYPE_TIMER_FIRED:
                started_id = event.timer_fired_event_attributes.started_event_id
                begun = events[started_id - 1]
                timeout = begun.timer_started_event_attributes.start_to_fire_timeout
                fire_time = begun.event_time.ToDatetime(UTC) + timeout.ToTimedelta()
                assert fire_time <= event.event_time.ToDatetime(UTC)
                assert started_id not in self.fired
                self.fired.add(started_id)
                self._has_come((started_id, 0))
        self.seen = len(events)
        self._check_nothing_is_late()

    def _check_nothing_is_late(self) -> None:
        state = self.bench.load(self.key).state
        open_ids = {timer.started_event_id for timer in state.timers.values()} | set(
            state.activities
        )
        for (event_id, _), (moment, _) in self.awaited.items():
            if self.is_whole and event_id in open_ids:
                assert moment > self.clock.monotonic() - 1e-6

    def finish(self) -> None:
        """The clock goes on evenly, and a worker does all that it gets."""
        for _ in range(3):
            while self.held:
                self.do("take", 0)
                for _ in self.bench.load(self.key).inflight.activities.copy():
                    self.do("complete", 0)
            self.do("advance", 3600 * 12)


_OFFERED_BEFORE_A_STEP: list[_Op] = [
    ("take", 0),
    ("fail", 0),
    ("advance", 5),
    ("step", -3600),
    ("take", 3),
]


@given(_OPS)
@example(_OFFERED_BEFORE_A_STEP)
@settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_all_that_is_owed_comes_about_whatever_the_clock_does(ops: list[_Op]) -> None:
    life = _Life()
    for name, value in ops:
        life.do(name, value)
    life.finish()
    state = life.bench.load(life.key).state
    assert not state.timers
    assert not state.activities
    assert state.workflow_task is None
    assert not state.buffered_events
    assert len(life.fired) == 3
