"""Taking shards over: what it costs, and that nothing is forgotten where there is no room."""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from aetheris.api.v1 import common_pb2, task_queue_pb2, workflow_service_pb2
from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.engine import loader
from aetheris_server.history.obligations import lane
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench
from tests.support.raw import seconds
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


async def _start(bench: HistoryBench, count: int, **fields: Any) -> set[str]:
    started = await asyncio.gather(
        *(
            bench.service.start_workflow(
                NAMESPACE_ID,
                workflow_service_pb2.StartWorkflowRequest(
                    workflow_id=f"w-{number}",
                    workflow_type=common_pb2.WorkflowType(name="Flow"),
                    task_queue=task_queue_pb2.TaskQueue(name="queue"),
                    workflow_task_timeout=seconds(10),
                    request_id=str(uuid.uuid4()),
                    **fields,
                ),
            )
            for number in range(count)
        )
    )
    return {response.run_id for response in started}


async def _wait_offered(bench: HistoryBench, run_ids: set[str]) -> None:
    await wait_until(
        lambda: {ref.run_id for ref in bench.matching.refs} >= run_ids, 20, "all tasks"
    )


async def test_recovery_loads_runs_in_few_statements(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        run_ids = await _start(bench, 300)
    async with history_bench(migrated_postgres_dsn) as bench:
        await _wait_offered(bench, run_ids)
        # Two pages of three statements, what is owed, and what a host says and asks anyway.
        assert bench.db.statement_count < 40
        assert len(bench.engine.cache) == 300


async def test_recovery_takes_large_runs_in_parts(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = common_pb2.Payload(data=bytes(10_000))
    async with history_bench(migrated_postgres_dsn) as bench:
        run_ids = await _start(bench, 20, input=common_pb2.Payloads(payloads=[payload]))
    monkeypatch.setattr(loader, "_MAX_PART_BYTES", 25_000)
    async with history_bench(migrated_postgres_dsn) as bench:
        await _wait_offered(bench, run_ids)
        assert bench.db.statement_count >= 20


async def test_tasks_that_found_no_room_are_offered_when_there_is_some(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LANE_MAX_COUNT", 8)
    async with history_bench(migrated_postgres_dsn) as bench:
        add_tasks, is_open = bench.matching.add_tasks, asyncio.Event()

        async def add_when_open(tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
            await is_open.wait()
            await add_tasks(tasks)

        bench.matching.add_tasks = add_when_open
        run_ids = await _start(bench, 50)
        assert bench.matching.refs == []
        is_open.set()
        await _wait_offered(bench, run_ids)


async def _one_in_each(bench: HistoryBench) -> dict[int, AggregateKey]:
    """By shard, a run that owes a task and is not in memory."""
    await _start(bench, 30)
    runs = {run.shard_id: run for run in bench.engine.cache}
    for run in runs.values():
        await wait_until(lambda run=run: run.is_evictable)
        bench.engine.cache.drop(run)
    return {shard_id: run.key for shard_id, run in runs.items()}


def _fail(bench: HistoryBench, *shard_ids: int) -> None:
    for shard_id in shard_ids:
        bench.engine.committer.fail_shard(bench.engine.shards[shard_id].owner)


def _is_recovered(bench: HistoryBench, shard_id: int) -> bool:
    return shard_id in bench.engine.shards and bench.engine.shards[shard_id].is_recovered


async def test_shard_that_is_taken_while_another_is_recovered_does_not_wait_for_it(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        keys = await _one_in_each(bench)
        # Whoever loads it never ends.
        loading = bench.engine._finder._loading
        hung = loading[keys[0].id] = asyncio.get_running_loop().create_future()
        _fail(bench, 0)
        await wait_until(lambda: 0 in bench.engine.shards)
        _fail(bench, 1)
        await wait_until(lambda: _is_recovered(bench, 1))
        assert not _is_recovered(bench, 0)
        del loading[keys[0].id]
        hung.set_result(None)
        await wait_until(lambda: _is_recovered(bench, 0))


async def test_shard_is_recovered_though_a_run_of_another_is_unavailable(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        keys = await _one_in_each(bench)
        load = bench.engine.load

        async def load_others(key: AggregateKey) -> Aggregate:
            if key == keys[0]:
                raise StorageUnavailableError("postgres", "not this one")
            return await load(key)

        monkeypatch.setattr(bench.engine, "load", load_others)
        _fail(bench, *keys)
        await wait_until(lambda: all(_is_recovered(bench, shard_id) for shard_id in (1, 2, 3)))
        assert not _is_recovered(bench, 0)
        monkeypatch.undo()
        await wait_until(lambda: _is_recovered(bench, 0))
