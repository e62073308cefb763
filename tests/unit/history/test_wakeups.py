"""What deadlines cost: how often runs are looked at and loaded, and what is kept for it."""

import asyncio
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from aetheris_server.history.engine.committer import MAX_QUEUED
from aetheris_server.history.engine.timers import Deadlines
from aetheris_server.history.engine.wakeups import DUE_HORIZON
from aetheris_server.history.runs.eager import release_activity
from aetheris_server.history.state.run import RunKey
from tests.support.clock import ManualClock
from tests.support.memory_engine import MemoryEngine
from tests.support.runs import complete_workflow, schedule_activity, seconds, start_timer
from tests.support.wait import wait_until

_PARKED = 2_000


def _key(name: str) -> RunKey:
    return RunKey("namespace", f"workflow-{name}", name)


def _looks() -> float:
    return REGISTRY.get_sample_value("aetheris_run_looks_total") or 0.0


def _run_simple(bench: MemoryEngine, name: str) -> RunKey:
    """Start, one activity, done."""
    key = bench.start(name)
    bench.run_task(key, schedule_activity(start_to_close_timeout=seconds(30)))
    bench.start_activity(key, 5)
    bench.complete_activity(key, 5)
    bench.run_task(key, complete_workflow())
    return key


# The heap.


def test_deadlines_come_in_order_and_never_early() -> None:
    deadlines = Deadlines()
    for name, deadline in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        deadlines.put(_key(name), deadline)
    assert deadlines.pop_due(0.9) is None
    assert [deadlines.pop_due(2.0) for _ in range(3)] == [_key("a"), _key("b"), None]
    assert len(deadlines) == 1


def test_earliest_deadline_of_a_run_is_kept_until_it_is_met() -> None:
    deadlines = Deadlines()
    assert deadlines.put(_key("a"), 2.0)
    assert not deadlines.put(_key("a"), 3.0)
    assert deadlines.put(_key("a"), 1.0)
    assert deadlines.pop_due(9.0) == _key("a")
    assert deadlines.pop_due(9.0) is None


def test_deadline_discarded_never_comes() -> None:
    deadlines = Deadlines()
    deadlines.put(_key("a"), 1.0)
    deadlines.discard("a")
    assert deadlines.first() is None
    deadlines.put(_key("a"), 2.0)
    assert deadlines.pop_due(1.5) is None


def test_superseded_deadlines_do_not_pile_up() -> None:
    deadlines = Deadlines()
    for number in range(20_000):
        key = _key(f"{number % 10}")
        deadlines.discard(key.run_id)
        deadlines.put(key, 1e6 - number)
    assert len(deadlines) == 10
    assert deadlines.heap_length <= 100


# Looks and loads.


def test_simple_run_is_never_looked_at(clock: ManualClock) -> None:
    bench, before = MemoryEngine(clock), _looks()
    _run_simple(bench, "a")
    for _ in range(120):
        bench.advance(1)
    assert _looks() == before
    assert len(bench.engine.wakeups) == 0


def test_run_with_a_timer_is_looked_at_once(clock: ManualClock) -> None:
    bench, before = MemoryEngine(clock), _looks()
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 30))
    for _ in range(120):
        bench.advance(1)
    assert _looks() == before + 1
    bench.run_task(key, complete_workflow())
    assert len(bench.engine.wakeups) == 0


def test_parked_runs_are_not_looked_at(clock: ManualClock) -> None:
    bench = MemoryEngine(clock)
    for number in range(_PARKED):
        bench.run_task(bench.start(f"{number}"))
    before = _looks()
    for _ in range(60):
        bench.advance(1)
    assert _looks() == before
    assert len(bench.engine.wakeups) == 0


def test_closed_runs_that_left_memory_are_never_loaded(clock: ManualClock) -> None:
    bench, before = MemoryEngine(clock, cache_max_count=10), _looks()
    for number in range(200):
        key = bench.start(f"{number}", workflow_run_timeout=seconds(3600))
        bench.run_task(key, schedule_activity(), start_timer("t", 60))
        bench.start_activity(key, 5)
        bench.complete_activity(key, 5)
        bench.run_task(key, complete_workflow())
        bench.advance(0.1)
    for _ in range(100):
        bench.advance(60)
        bench.schedule_due(DUE_HORIZON)
    assert bench.loads == 0
    assert _looks() == before
    assert bench.engine.wakeups._durable.heap_length <= 100


def test_run_that_left_memory_is_loaded_once_for_its_deadline(clock: ManualClock) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 3600))
    bench.evict(key)
    assert len(bench.engine.wakeups) == 0
    for _ in range(3 * 60):
        bench.advance(30)
        bench.schedule_due(DUE_HORIZON)
    assert bench.loads == 1
    assert not bench.load(key).state.timers


def test_run_that_is_found_due_again_and_again_waits_once_to_be_loaded(clock: ManualClock) -> None:
    bench = MemoryEngine(clock)
    names = ("a", "b")
    for name in names:
        key = bench.start(name)
        bench.run_task(key, start_timer("t", 3600))
        bench.evict(key)
    clock.advance(3600)
    wakeups = bench.engine.wakeups
    for _ in range(10):
        bench.schedule_due(DUE_HORIZON)
        wakeups.look_at_due()
    assert wakeups._to_load.qsize() == 2
    bench.look()
    assert bench.loads == 2
    assert wakeups._to_load.empty()


def test_attempt_whose_time_comes_before_the_disk_has_it_is_offered_when_it_has(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, schedule_activity(retry_policy={"initial_interval": seconds(0.001)}))
    bench.start_activity(key, 5)
    bench.take_refs()
    with monkeypatch.context() as patch:
        patch.setattr(bench, "settle", lambda: None)
        bench.fail_activity(key, 5)
        clock.advance(1)
        assert bench.engine.wakeups.look_at_due() > 0
        assert bench.take_refs() == []
    assert [ref.attempt for ref in bench.take_refs()] == [2]


def test_run_that_cannot_be_looked_at_is_looked_at_again(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 5))
    with monkeypatch.context() as patch:
        patch.setattr(bench.engine.committer, "_queue", [None] * MAX_QUEUED)
        clock.advance(5)
        bench.engine.wakeups.look_at_due()
    bench.advance(0.9)
    assert bench.load(key).state.timers
    bench.advance(0.2)
    assert not bench.load(key).state.timers


def test_run_at_fault_keeps_no_other_from_being_looked_at(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = MemoryEngine(clock)
    bad, good = bench.start("bad"), bench.start("good")
    for key in (bad, good):
        bench.run_task(key, start_timer("t", 5))
    monkeypatch.setattr(bench.load(bad).inflight, "backing_off", None)
    bench.advance(5)
    assert not bench.load(good).state.timers


async def test_wait_notices_an_earlier_deadline(clock: ManualClock) -> None:
    bench, before = MemoryEngine(clock), _looks()
    run = bench.load(bench.start("a"))
    bench.engine.wakeups.schedule_inflight(run, clock.monotonic() + 3600)
    watch = asyncio.create_task(bench.engine.wakeups._watch())
    try:
        await asyncio.sleep(0)
        bench.engine.wakeups.schedule_inflight(run, clock.monotonic())
        await wait_until(lambda: _looks() == before + 1, 5)
    finally:
        watch.cancel()
        await asyncio.wait([watch])


async def test_step_forward_is_noticed_within_a_moment(clock: ManualClock) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, start_timer("t", 3600))
    watch = asyncio.create_task(bench.engine.wakeups._watch())
    try:
        await asyncio.sleep(0)
        clock.set_wall_clock(clock.now() + timedelta(hours=1))
        await wait_until(lambda: not bench.load(key).state.timers, 5)
    finally:
        watch.cancel()
        await asyncio.wait([watch])


def test_activity_given_back_too_late_to_be_started_times_out(clock: ManualClock) -> None:
    bench = MemoryEngine(clock)
    key = bench.start("a")
    bench.run_task(key, schedule_activity(schedule_to_start_timeout=seconds(5)))
    run = bench.load(key)
    (scheduled_id,) = run.state.activities
    bench.start_activity(key, scheduled_id)
    bench.advance(6)
    started = run.inflight.activities[scheduled_id]
    release_activity(bench.runs, run, scheduled_id, started.started_time)
    bench.look()
    assert not run.state.activities
