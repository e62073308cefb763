"""The small parts of the shell: the cache, the offers, the look-ups."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest

from aetheris.server.v1 import matching_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.errors import (
    ShardNotOwnedError,
    StorageUnavailableError,
    UnavailableError,
    UnstorableError,
)
from aetheris_server.history.aggregates.transition import Ticket
from aetheris_server.history.engine.cache import AggregateCache
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.obligations.tasks import TaskCarrier
from aetheris_server.history.runs.newest import NewestRuns
from aetheris_server.history.runs.run import EventTail, LoadedRun, WaitingQuery
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.inflight import TaskTaker
from aetheris_server.history.state.machines.activity.values import StartedActivity
from aetheris_server.history.state.run import RunKey
from aetheris_server.storage.database import Database
from aetheris_server.storage.executions import load_newest_runs
from tests.support.clock import ManualClock
from tests.support.engines import build_dispatcher, build_runs
from tests.support.runs import BEGIN, RunDriver, payloads, schedule_activity
from tests.support.wait import wait_until

TaskRef = matching_service_pb2.TaskRef


def _key(name: str) -> RunKey:
    return RunKey("namespace", f"workflow-{name}", name)


def _loaded(name: str) -> LoadedRun:
    state = RunDriver().state
    state.key = _key(name)
    return LoadedRun(0, state)


async def _while_running(
    loop: Callable[[], Awaitable[None]], check: Callable[[], Awaitable[None]]
) -> None:
    task = asyncio.ensure_future(loop())
    try:
        await check()
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


# The cache.


def _cache(max_runs: int, max_bytes: int = 10**9) -> tuple[AggregateCache, list[str]]:
    evicted: list[str] = []
    return AggregateCache(max_runs, max_bytes, lambda run: evicted.append(run.key.id)), evicted


def test_cache_that_is_full_lets_the_least_recently_used_go() -> None:
    cache, evicted = _cache(2)
    runs = [_loaded(name) for name in "abc"]
    for run in runs[:2]:
        cache.put(run)
    cache.find("a")
    cache.put(runs[2])
    assert evicted == ["b"]
    assert runs[1].is_dropped
    assert cache.find("b") is None


def _started() -> StartedActivity:
    return StartedActivity(5, 1, TaskTaker("w"), BEGIN, 0.0, BEGIN, 0.0, "q", 10.0, 0.0)


def test_cache_passes_over_runs_that_workers_have() -> None:
    cache, evicted = _cache(1)
    busy = _loaded("busy")
    busy.inflight.activities[5] = _started()
    cache.put(busy)
    cache.put(_loaded("a"))
    cache.put(_loaded("b"))
    assert evicted == ["a"]
    assert cache.find("busy") is busy


@pytest.mark.parametrize("bounds", [(1, 10**9), (100, 1)])
def test_run_just_put_stays_however_full_the_cache_is(bounds: tuple[int, int]) -> None:
    cache, evicted = _cache(*bounds)
    for name in "abc":
        run = _loaded(name)
        run.inflight.activities[5] = _started()
        cache.put(run)
    newest = _loaded("newest")
    cache.put(newest)
    assert cache.find("newest") is newest
    assert not newest.is_dropped
    assert evicted == []


def test_uncommitted_run_is_not_evicted() -> None:
    cache, evicted = _cache(1)
    run = _loaded("a")
    run.last_ticket = Ticket()
    cache.put(run)
    cache.put(_loaded("b"))
    assert evicted == []
    run.last_ticket.resolve()
    cache.put(_loaded("c"))
    assert "a" in evicted


def test_cache_makes_room_when_runs_grow() -> None:
    cache, evicted = _cache(10, max_bytes=200_000)
    idle = LoadedRun(0, RunDriver(input=payloads("x" * 100_000)).state)
    cache.put(idle)
    driver = RunDriver()
    driver.state.key = _key("growing")
    growing = LoadedRun(0, driver.state)
    cache.put(growing)
    driver.run_task(schedule_activity("a", input=payloads("x" * 100_000)))
    cache.weigh(growing)
    assert evicted == [idle.key.run_id]
    assert cache.find("growing") is growing


async def test_queries_of_a_dropped_run_are_sent_elsewhere() -> None:
    cache, _ = _cache(1)
    run = _loaded("a")
    answer = asyncio.get_running_loop().create_future()
    run.queries["q"] = WaitingQuery("q", cast("Any", None), answer, BEGIN)
    cache.put(run)
    cache.drop(run)
    with pytest.raises(ShardNotOwnedError):
        await answer


async def test_wait_for_a_commit_that_failed_before_says_so() -> None:
    run = _loaded("a")
    run.last_ticket = Ticket()
    run.last_ticket.resolve(UnavailableError("gone"))
    with pytest.raises(UnavailableError):
        await run.wait_committed()


def test_tail_keeps_the_newest_events_and_knows_what_it_has_not() -> None:
    events = [*RunDriver().history]
    tail = EventTail(1)
    tail.extend(events)
    assert tail.try_slice(1, len(events) + 1) == events
    assert tail.try_slice(2, 3) == events[1:2]
    assert tail.try_slice(1, len(events) + 2) is None
    for _ in range(600):
        tail.extend(events[:1])
    assert tail.try_slice(1, 2) is None
    assert len(tail.try_slice(601 + len(events) - 512, 601 + len(events)) or []) == 512


# Offers.


class _Matching:
    """Fails as often as it is told, then takes what it gets."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.added: list[str] = []

    async def add_tasks(self, tasks: Sequence[TaskRef]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.added += [task.run_id for task in tasks]


@pytest.mark.parametrize(
    "failure", [StorageUnavailableError("redis", "gone"), ValueError("a fault of matching")]
)
async def test_offer_that_fails_is_repeated(failure: Exception) -> None:
    matching = _Matching(failure)
    dispatcher = build_dispatcher(matching, SystemClock())
    dispatcher.offer([TaskRef(run_id="a"), TaskRef(run_id="b")])

    async def check() -> None:
        await wait_until(lambda: matching.added == ["a", "b"], 5)

    await _while_running(dispatcher.run, check)


class _OneQueueDown:
    """Takes no task of one queue, ever, nor what comes in one call with it."""

    def __init__(self, down: str) -> None:
        self.down = down
        self.added: list[str] = []

    async def add_tasks(self, tasks: Sequence[TaskRef]) -> None:
        if any(task.task_queue == self.down for task in tasks):
            raise StorageUnavailableError("redis", "gone")
        self.added += [task.run_id for task in tasks]


async def test_queues_that_cannot_be_reached_hold_up_no_other() -> None:
    matching = _OneQueueDown("down")
    dispatcher = build_dispatcher(matching, SystemClock())

    async def check() -> None:
        for number in range(40):
            dispatcher.offer([TaskRef(run_id=f"lost-{number}", task_queue="down")])
            await asyncio.sleep(0)
        dispatcher.offer(
            [TaskRef(run_id="lost", task_queue="down"), TaskRef(run_id="a", task_queue="up")]
        )
        await wait_until(lambda: matching.added == ["a"], 5)

    await _while_running(dispatcher.run, check)


async def test_query_that_nobody_waits_for_any_more_is_not_offered_again() -> None:
    matching = _Matching(StorageUnavailableError("redis", "gone"))
    dispatcher = build_dispatcher(matching, SystemClock())
    expired = TaskRef(run_id="q", query_id="q")
    expired.expire_time.FromDatetime(BEGIN - timedelta(days=9999))
    dispatcher.offer([expired, TaskRef(run_id="a")])

    async def check() -> None:
        await wait_until(lambda: bool(matching.added), 5)

    await _while_running(dispatcher.run, check)
    assert matching.added == ["a"]


async def test_query_is_offered_again_though_the_wall_clock_has_stepped_forward(
    clock: ManualClock,
) -> None:
    matching = _Matching(StorageUnavailableError("redis", "gone"))
    dispatcher = build_dispatcher(matching, clock)
    query = TaskRef(run_id="q", query_id="q")
    query.expire_time.FromDatetime(clock.now() + timedelta(seconds=20))
    dispatcher.offer([query])
    clock.set_wall_clock(clock.now() + timedelta(hours=1))

    async def check() -> None:
        await wait_until(lambda: bool(dispatcher.tasks._later), 5)
        clock.advance(1)
        await wait_until(lambda: matching.added == ["q"], 5)

    await _while_running(dispatcher.run, check)
    assert not cast("TaskCarrier", dispatcher.tasks._carrier)._query_deadlines


# Look-ups of workflow ids.


class _Rows:
    """A database that knows one workflow id, and counts what it is asked."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.failures = 0

    async def fetch(self, query: str, parameters: Any) -> list[Any]:
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise StorageUnavailableError("postgres", "gone")
        self.keys.append(len(parameters[0]))
        return [
            (position, "run", 1, "request", "run", BEGIN, None)
            for position, name in enumerate(parameters[2], start=1)
            if name == "known"
        ]


async def test_look_ups_at_once_go_in_one_statement_and_are_kept() -> None:
    rows = _Rows()
    newest = NewestRuns(partial(load_newest_runs, cast("Database", rows)), max_entries=10)

    async def check() -> None:
        keys = [(1, "ns", name) for name in ("known", "a", "b", "known")]
        found = await asyncio.gather(*(newest.load(key) for key in keys))
        assert [run.run_id if run else None for run in found] == ["run", None, None, "run"]
        assert rows.keys == [3]
        await newest.load((1, "ns", "known"))
        assert rows.keys == [3]
        newest.forget_shard(1)
        await newest.load((1, "ns", "known"))
        assert rows.keys == [3, 1]

    await _while_running(newest.run, check)


async def test_look_up_that_fails_tells_its_waiters_and_is_repeated() -> None:
    rows = _Rows()
    rows.failures = 1
    newest = NewestRuns(partial(load_newest_runs, cast("Database", rows)), max_entries=10)

    async def check() -> None:
        with pytest.raises(StorageUnavailableError):
            await newest.load((1, "ns", "known"))
        assert (await newest.load((1, "ns", "known"))) is not None

    await _while_running(newest.run, check)


async def test_look_up_that_was_sent_before_its_shard_was_forgotten_is_repeated() -> None:
    found: list[dict[Any, Any]] = [{(1, "ns", "w"): "after"}, {}]
    newest: NewestRuns

    async def load(keys: Sequence[Any]) -> dict[Any, Any]:
        if len(found) == 2:
            # What was on its way is on disk, and the shard taken anew, before the answer comes.
            newest.forget_shard(1)
        return found.pop()

    newest = NewestRuns(load, max_entries=10)

    async def check() -> None:
        assert await newest.load((1, "ns", "w")) == "after"

    await _while_running(newest.run, check)


async def test_look_up_that_is_refused_fails_no_other() -> None:
    async def load(keys: Sequence[Any]) -> dict[Any, Any]:
        if (1, "ns", "bad") in keys:
            raise UnstorableError("postgres refuses a value")
        return dict.fromkeys(keys, "run")

    newest = NewestRuns(load, max_entries=10)

    async def check() -> None:
        keys = [(1, "ns", name) for name in ("a", "bad", "b")]
        answers = await asyncio.gather(*map(newest.load, keys), return_exceptions=True)
        assert answers[0] == answers[2] == "run"
        assert isinstance(answers[1], UnstorableError)

    await _while_running(newest.run, check)


async def test_look_ups_go_on_after_a_fault_in_the_half_of_one() -> None:
    async def load(keys: Sequence[Any]) -> dict[Any, Any]:
        if len(keys) > 1:
            raise UnstorableError("postgres refuses a value")
        if (1, "ns", "faulty") in keys:
            raise ValueError("a fault")
        return dict.fromkeys(keys, "run")

    newest = NewestRuns(load, max_entries=10)

    async def check() -> None:
        keys = [(1, "ns", "a"), (1, "ns", "faulty")]
        answers = await asyncio.gather(*map(newest.load, keys), return_exceptions=True)
        assert answers[0] == "run"
        assert isinstance(answers[1], StorageUnavailableError)
        assert await newest.load((1, "ns", "b")) == "run"

    async with asyncio.timeout(5):
        await _while_running(newest.run, check)


# The lease.


def _engine(clock: ManualClock, is_leased: Callable[[], bool] = lambda: True) -> Engine:
    return build_runs(clock, is_leased=is_leased).engine


def _shard(range_id: int) -> Shard:
    return Shard(shard_id=0, range_id=range_id, next_seq=1, watermark=0)


def test_host_past_its_lease_answers_nothing(clock: ManualClock) -> None:
    leases = [True, False, True]
    engine = _engine(clock, lambda: leases.pop(0))
    engine.add_shard(_shard(1))
    engine.find_shard("namespace", "workflow")
    with pytest.raises(ShardNotOwnedError):
        engine.find_shard("namespace", "workflow")
    engine.find_shard("namespace", "workflow")


@pytest.mark.parametrize("range_id,is_kept", [(2, True), (3, False)])
def test_runs_in_memory_outlive_a_failed_commit_only_if_nobody_had_the_shard(
    clock: ManualClock, range_id: int, is_kept: bool
) -> None:
    engine = _engine(clock)
    engine.add_shard(_shard(1))
    run = _loaded("a")
    engine.cache.put(run)
    engine._table.fail(0, 1, is_lost=False)
    assert engine.cache.find("a") is run
    engine.add_shard(_shard(range_id))
    assert (engine.cache.find("a") is run) == is_kept
