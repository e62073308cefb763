"""The wall clock steps by seconds or hours: nothing is skipped, and nothing is early."""

from datetime import UTC, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from aetheris.api.v1.history_pb2 import EVENT_TYPE_TIMER_FIRED
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.history.state.run import RunKey
from aetheris_server.history.wakeups import DUE_HORIZON
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
def test_retry_is_offered_once_when_the_wall_clock_reaches_its_time(
    clock: ManualClock, step: float
) -> None:
    bench = MemoryEngine(clock)
    _fail_once(bench)
    _step(clock, step)
    bench.look()
    offered = len(bench.take_refs())
    assert offered == (step >= 2)
    for _ in range(int(abs(step)) + 4):
        bench.advance(1)
        offered += len(bench.take_refs())
    assert offered == 1


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
        self.look()

    def do(self, name: str, value: float) -> None:
        match name:
            case "step":
                _step(self.clock, value)
            case "advance":
                self.clock.advance(value)
            case "take":
                if self.held:
                    self._start(self.held.pop(int(value) % len(self.held)))
            case "evict":
                self.bench.evict(self.key)
            case _:
                started = sorted(self.bench.load(self.key).inflight.activities)
                if started:
                    act = getattr(self.bench, {"heartbeat": name}.get(name, f"{name}_activity"))
                    act(self.key, started[int(value) % len(started)])
        self.bench.schedule_due(DUE_HORIZON)
        self.look()

    def _start(self, ref: TaskRef) -> None:
        if not self.bench.is_startable(ref):
            return
        if ref.task_queue_type == TASK_QUEUE_TYPE_ACTIVITY:
            self.bench.start_activity(self.key, ref.scheduled_event_id)
        else:
            self.bench.run_task(self.key)

    def look(self) -> None:
        """What is due happens; none of it may be early, and no timer may fire twice."""
        self.bench.look()
        for ref in self.bench.take_refs():
            assert ref.attempt == 1 or ref.scheduled_time.ToDatetime(UTC) <= self.clock.now()
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
        self.seen = len(events)

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
