"""The sweep on a real Postgres: what runs owe for long is offered again."""

import uuid
from collections.abc import Sequence

import pytest

from aetheris.api.v1 import common_pb2, task_queue_pb2, workflow_service_pb2
from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.history.obligations import lane
from aetheris_server.history.recovery.sweep import Sweep
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench
from tests.support.raw import seconds
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


async def start_runs(bench: HistoryBench, count: int, queue: str = "queue") -> set[str]:
    before = len(bench.matching.refs)
    for number in range(count):
        await bench.service.start_workflow(
            NAMESPACE_ID,
            workflow_service_pb2.StartWorkflowRequest(
                workflow_id=f"{queue}-{number}",
                workflow_type=common_pb2.WorkflowType(name="Flow"),
                task_queue=task_queue_pb2.TaskQueue(name=queue),
                workflow_task_timeout=seconds(10),
                request_id=str(uuid.uuid4()),
            ),
        )
    refs, total = bench.matching.refs, before + count
    await wait_until(lambda: len(refs) == total, what="all tasks to be offered")
    flagged = [shard.owing.flagged for shard in bench.engine.shards.values()]
    await wait_until(lambda: sum(map(len, flagged)) == total, what="all runs to be flagged")
    return {ref.run_id for ref in refs[before:]}


@pytest.mark.parametrize("cache_max_runs", [100, 2])
async def test_tasks_owed_for_long_are_offered_again_from_memory_or_from_the_log(
    migrated_postgres_dsn: str, cache_max_runs: int
) -> None:
    async with history_bench(migrated_postgres_dsn, cache_max_runs=cache_max_runs) as bench:
        run_ids = await start_runs(bench, 5)
        bench.matching.refs.clear()
        await Sweep(bench.engine, 60.0).sweep()
        await wait_until(lambda: len(bench.matching.refs) == 5)
        assert {ref.run_id for ref in bench.matching.refs} == run_ids
        assert all(ref.is_repeated for ref in bench.matching.refs)


async def test_task_that_a_worker_has_is_not_offered_again(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await start_runs(bench, 2)
        [taken, waiting] = bench.matching.refs
        await bench.start_task(taken)
        bench.matching.refs.clear()
        await Sweep(bench.engine, 60.0).sweep()
        await wait_until(lambda: bench.matching.refs)
        assert [ref.run_id for ref in bench.matching.refs] == [waiting.run_id]


async def test_sweep_of_a_host_that_owes_nothing_asks_nothing(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        before = bench.db.row_count
        await Sweep(bench.engine, 60.0).sweep()
        assert (bench.db.row_count, bench.matching.refs) == (before, [])


async def test_sweep_adds_nothing_where_tasks_are_not_taken_and_passes_by_no_other(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "MAX_BATCH", 1)
    async with history_bench(migrated_postgres_dsn) as bench:
        dead_runs = await start_runs(bench, 3, "dead")
        live_runs = await start_runs(bench, 2, "live")
        matching, dispatcher = bench.matching, bench.engine.dispatcher
        monkeypatch.setattr(dispatcher.tasks._carrier, "locate", lambda ref: ref.task_queue)
        add_tasks = matching.add_tasks

        async def add_some(tasks: Sequence[matching_service_pb2.TaskRef]) -> None:
            if any(ref.task_queue == "dead" for ref in tasks):
                raise StorageUnavailableError("redis", "gone")
            await add_tasks(tasks)

        matching.add_tasks = add_some
        matching.refs.clear()
        for _ in range(3):
            await Sweep(bench.engine, 60.0).sweep()
            await wait_until(lambda: {ref.run_id for ref in matching.refs} == live_runs)
            matching.refs.clear()
        assert 0 < dispatcher.tasks._lanes["dead"].count < len(dead_runs)
