"""What a run takes in memory is known at any moment, and bounds how it is kept."""

from collections.abc import Callable

import pytest

from aetheris_server.history.engine import engine
from aetheris_server.history.runs import run as run_module
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.clock import ManualClock
from tests.support.memory_engine import MemoryEngine
from tests.support.runs import KEY, RunDriver, payloads, schedule_activity, start_timer

_LARGE = "x" * 100_000


def _schedule(run: RunDriver) -> None:
    run.run_task(schedule_activity("a", input=payloads(_LARGE)))


def _buffer(run: RunDriver) -> None:
    run.start_task()
    run.signal(input=payloads(_LARGE))


def _heartbeat(run: RunDriver) -> None:
    run.run_task(schedule_activity("a"))
    run.start_activity("a")
    run.heartbeat("a", _LARGE)


def _remember_requests(run: RunDriver) -> None:
    for number in range(100):
        run.signal(f"{number:01000}")


@pytest.mark.parametrize(
    "grow",
    [_schedule, _buffer, _heartbeat, _remember_requests],
    ids=lambda one: one.__name__,
)
def test_whatever_a_run_holds_is_counted_and_gone_when_it_closes(
    grow: Callable[[RunDriver], None],
) -> None:
    run = RunDriver()
    before = run.state.byte_count
    grow(run)
    grown = run.state.byte_count - before
    assert 100_000 <= grown < 130_000
    assert _loaded(run).estimate_bytes() > grown
    assert _reread(run).byte_count == run.state.byte_count
    run.terminate()
    assert run.state.byte_count <= before + (grown if run.state.request_ids else 0)
    assert run.state.buffered_bytes == 0


def test_heartbeats_and_attempts_replace_what_was_counted() -> None:
    run = RunDriver()
    run.run_task(schedule_activity("a"), start_timer())
    for _ in range(3):
        run.start_activity("a")
        run.heartbeat("a", _LARGE)
        run.heartbeat("a", "small")
        run.fail_activity("a")
        run.advance(100)
    assert run.state.byte_count < 10_000
    assert _reread(run).byte_count == run.state.byte_count


def _loaded(run: RunDriver) -> LoadedRun:
    return LoadedRun(0, run.state)


def _reread(run: RunDriver) -> RunState:
    state = run.state
    return from_snapshot(KEY, state.run_seq, state.hash, to_snapshot(state))


def test_log_that_grew_by_many_bytes_calls_for_a_snapshot() -> None:
    run = RunDriver()
    loaded = _loaded(run)
    large = payloads("x" * 2_000_000)
    count = 0
    while not loaded.needs_snapshot(256):
        count += 1
        run.signal(f"{count}", input=large)
    assert count == 9
    loaded.note_snapshot()
    assert not loaded.needs_snapshot(256)


def test_state_too_large_for_the_store_has_no_snapshot() -> None:
    run = RunDriver()
    large = payloads("x" * 2_000_000)
    for number in range(40):
        run.run_task(schedule_activity(f"{number}", input=large))
        run.signal(f"{number}")
    assert not _loaded(run).needs_snapshot(1)


def _refuse(_: RunState) -> bytes:
    raise ValueError("a fault")


def test_fault_in_a_snapshot_fails_neither_its_run_nor_one_that_takes_its_room(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_MIN_RECORDS_FOR_SNAPSHOT", 2)
    monkeypatch.setattr(run_module, "to_snapshot", _refuse)
    bench = MemoryEngine(clock, cache_max_count=1, snapshot_interval_records=2)
    old = bench.start("old")
    bench.run_task(old, schedule_activity("a"))
    new = bench.start("new")
    assert list(bench.engine.shards) == [0]
    assert bench.engine.cache.peek(old.run_id) is None
    bench.run_task(new, schedule_activity("a"))
    assert len(bench.events(old)) == len(bench.events(new)) > 2
