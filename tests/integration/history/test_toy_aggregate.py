"""A kind of aggregate that only a test knows: through engine, Postgres, crashes and recovery."""

from datetime import timedelta
from typing import cast

import pytest

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.errors import (
    AggregateNotFoundError,
    UnknownRecordError,
    WorkflowNotFoundError,
)
from aetheris_server.history.engine.engine import Engine
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS
from tests.support.clock import ManualClock
from tests.support.counter import (
    NAME,
    Counter,
    counter_key,
    counters_served,
    decide_added,
    next_key,
)
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench, start_request
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


async def _load(engine: Engine, name: str) -> Counter:
    return cast("Counter", await engine.load(counter_key(NAMESPACE_ID, name)))


async def _add(
    bench: HistoryBench, name: str, request_id: str, amount: int = 1, **optional: float
) -> Counter:
    """Add to a counter, which is made if there is none yet; returns when that is on disk."""
    engine, key = bench.engine, counter_key(NAMESPACE_ID, name)
    try:
        counter = await _load(engine, name)
    except AggregateNotFoundError:
        record = decide_added(None, request_id, amount, engine.clock.now(), **optional)
        assert record is not None
        counter = cast("Counter", engine.create(key, record))
    else:
        now = engine.time_of(counter)
        record = decide_added(counter, request_id, amount, now, **optional)
    if record is not None:
        engine.commit(counter, record)
    await counter.wait_committed()
    return counter


def _state(counter: Counter) -> tuple[object, ...]:
    times = (counter.expire_time, counter.close_time)
    return (counter.count, dict(counter.counts), times, counter.seq, counter.hash)


async def _row(bench: HistoryBench, name: str) -> tuple[object, ...]:
    id_ = counter_key(NAMESPACE_ID, name).id
    (row,) = await bench.db.fetch(
        "SELECT kind, name, wake_time, close_time, owes FROM aggregates WHERE id = %s", [id_]
    )
    return row


@pytest.mark.parametrize("interval", [1, 1000], ids=["from-snapshot", "from-log"])
async def test_aggregate_of_a_test_lives_through_crashes(
    migrated_postgres_dsn: str, interval: int
) -> None:
    clock = ManualClock()
    settings = {"snapshot_interval_records": interval}
    with counters_served():
        async with history_bench(migrated_postgres_dsn, clock, **settings) as bench:
            await _add(bench, "apples", "1", 3, seconds=60)
            await _add(bench, "apples", "2", 4)
            counter = await _add(bench, "apples", "2", 4)
            before = _state(counter)
            assert counter.count == 7
            expire_time = clock.now() + timedelta(seconds=60)
            assert await _row(bench, "apples") == (NAME, "apples", expire_time, None, False)
            assert (bench.engine.writer.row_counts[PUT_SNAPSHOTS] > 0) == (interval == 1)
            # The run's own table has nothing of it, and no worker is asked for anything.
            assert await bench.db.fetch("SELECT count(*) FROM executions") == [(0,)]
        # The host is gone, and with it the deadline that it waited for: another one is found to be
        # due by its row.
        clock.advance(30)
        async with history_bench(migrated_postgres_dsn, clock, **settings) as bench:
            counter = await _load(bench.engine, "apples")
            assert _state(counter) == before
            assert (counter.snapshot_seq > 0) == (interval == 1)
            assert counter.count == (await _add(bench, "apples", "1", 3)).count
            bench.advance(30)
            await wait_until(lambda: not counter.is_open)
            await counter.wait_committed()
            closed = _state(counter)
            assert await _row(bench, "apples") == (NAME, "apples", None, clock.now(), False)
        async with history_bench(migrated_postgres_dsn, clock, **settings) as bench:
            assert _state(await _load(bench.engine, "apples")) == closed
            assert bench.matching.refs == []


async def test_deadline_that_came_while_no_host_lived_is_found_by_the_row(
    migrated_postgres_dsn: str,
) -> None:
    clock = ManualClock()
    with counters_served():
        async with history_bench(migrated_postgres_dsn, clock) as bench:
            await _add(bench, "apples", "1", seconds=3600)
            await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        clock.advance(3600)
        async with history_bench(migrated_postgres_dsn, clock) as bench:
            id_ = counter_key(NAMESPACE_ID, "apples").id
            loaded = await wait_until(lambda: cast("Counter", bench.engine.cache.peek(id_)))
            await wait_until(lambda: not loaded.is_open)


async def test_aggregate_that_left_memory_is_the_same_when_it_is_loaded_again(
    migrated_postgres_dsn: str,
) -> None:
    with counters_served():
        async with history_bench(migrated_postgres_dsn, cache_max_runs=1) as bench:
            states: dict[str, tuple[object, ...]] = {}
            for number in range(40):
                for name in ("a", "b", "c"):
                    states[name] = _state(await _add(bench, name, f"{number}"))
            assert len(bench.engine.cache) == 1
            # A snapshot was made of what left memory with so many records.
            await wait_until(lambda: bench.engine.writer.row_counts[PUT_SNAPSHOTS] >= 2)
            for name, state in states.items():
                assert _state(await _load(bench.engine, name)) == state


async def test_aggregate_of_a_failed_shard_is_what_the_disk_has(migrated_postgres_dsn: str) -> None:
    with counters_served():
        async with history_bench(migrated_postgres_dsn) as bench:
            counter = await _add(bench, "apples", "1")
            kept = _state(counter)
            record = decide_added(counter, "2", 1, bench.engine.time_of(counter))
            assert record is not None
            ticket = bench.engine.commit(counter, record).ticket
            owner = bench.engine.shards[counter.shard_id].owner
            bench.engine.committer.fail_shard(owner)
            with pytest.raises(Exception, match="the commit failed"):
                await ticket.wait()
            await wait_until(lambda: counter.shard_id in bench.engine.shards)
            assert _state(await _load(bench.engine, "apples")) == kept


async def test_aggregate_of_a_kind_that_is_not_known_harms_nothing_else(
    migrated_postgres_dsn: str,
) -> None:
    with counters_served():
        async with history_bench(migrated_postgres_dsn) as bench:
            await _add(bench, "apples", "1", seconds=3600)
            await bench.db.fetch("UPDATE aggregates SET owes = true")
            await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    key = counter_key(NAMESPACE_ID, "apples")
    async with history_bench(migrated_postgres_dsn) as bench:
        await wait_until(lambda: bench.matching.refs)
        await wait_until(lambda: all(each.is_recovered for each in bench.engine.shards.values()))
        with pytest.raises(UnknownRecordError, match="the kind 'counter'"):
            await bench.engine.load(key)
        # It may owe something, so it stays flagged for a program that knows it.
        assert key in bench.engine.find_shard(NAMESPACE_ID, "apples").owing.flagged
    with counters_served():
        async with history_bench(migrated_postgres_dsn) as bench:
            assert (await _load(bench.engine, "apples")).count == 1
            shard = bench.engine.find_shard(NAMESPACE_ID, "apples")
            await wait_until(lambda: key not in shard.owing.flagged)


async def test_aggregate_that_is_no_run_is_not_found_as_one(migrated_postgres_dsn: str) -> None:
    with counters_served():
        async with history_bench(migrated_postgres_dsn) as bench:
            counter = await _add(bench, "apples", "1")
            request = workflow_service_pb2.DescribeWorkflowRequest()
            request.workflow_execution.workflow_id = "apples"
            request.workflow_execution.run_id = counter.key.id
            with pytest.raises(WorkflowNotFoundError):
                await bench.service.describe_workflow(NAMESPACE_ID, request)
            bench.engine.cache.drop(counter)
            with pytest.raises(WorkflowNotFoundError):
                await bench.service.describe_workflow(NAMESPACE_ID, request)


async def test_aggregates_that_a_record_begins_are_written_with_it(
    migrated_postgres_dsn: str,
) -> None:
    key = counter_key(NAMESPACE_ID, "apples")
    second, third = next_key(key), next_key(next_key(key))
    with counters_served():
        async with history_bench(migrated_postgres_dsn) as bench:
            await _add(bench, "apples", "1", 3, begins=2)
            in_memory = [_state(_loaded(bench, each.id)) for each in (key, second, third)]
            rows = await bench.db.fetch("SELECT id::text FROM aggregates WHERE close_time IS NULL")
            assert rows == [(third.id,)]
        async with history_bench(migrated_postgres_dsn) as bench:
            loaded = [
                cast("Counter", await bench.engine.load(each)) for each in (key, second, third)
            ]
            assert [_state(each) for each in loaded] == in_memory
            assert [each.count for each in loaded] == [3, 3, 3]
            assert [each.is_open for each in loaded] == [False, False, True]


async def test_aggregate_that_a_lost_record_began_is_not_there(migrated_postgres_dsn: str) -> None:
    key = counter_key(NAMESPACE_ID, "apples")
    with counters_served():
        async with history_bench(migrated_postgres_dsn) as bench:
            counter = await _add(bench, "apples", "1")
            now = bench.engine.time_of(counter)
            record = decide_added(counter, "2", 1, now, begins=1)
            assert record is not None
            ticket = bench.engine.commit(counter, record).ticket
            assert bench.engine.cache.peek(next_key(key).id) is not None
            owner = bench.engine.shards[counter.shard_id].owner
            bench.engine.committer.fail_shard(owner)
            with pytest.raises(Exception, match="the commit failed"):
                await ticket.wait()
            await wait_until(lambda: counter.shard_id in bench.engine.shards)
            assert (await _load(bench.engine, "apples")).is_open
            with pytest.raises(AggregateNotFoundError):
                await bench.engine.load(next_key(key))


def _loaded(bench: HistoryBench, id_: str) -> Counter:
    return cast("Counter", bench.engine.cache.peek(id_))
