"""Runs that begin as another one did, on a real Postgres: long ones, and ones that are damaged."""

import asyncio
from typing import Any

import psycopg
import pytest

from aetheris.api.v1 import workflow_service_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_WORKFLOW
from aetheris.api.v1.worker_service_pb2 import RespondWorkflowTaskCompletedRequest
from aetheris_server.errors import BrokenLogError
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    signal_request,
    start_request,
)
from tests.support.log_audit import audit_log
from tests.support.raw import record_marker, schedule_activity, start_timer, types
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_LAST = workflow_service_pb2.WORKFLOW_TASK_POINT_LAST


async def _run_task(bench: HistoryBench, *commands: Any) -> None:
    ref = await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW)
    started = await bench.start_task(ref)
    await bench.service.respond_workflow_task_completed(
        NAMESPACE_ID,
        RespondWorkflowTaskCompletedRequest(
            task_token=started.workflow_task.task_token, commands=commands, identity="worker"
        ),
    )


async def _make_base(bench: HistoryBench, task_count: int, marker_count: int) -> str:
    started = await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    for number in range(task_count):
        markers = [record_marker("m") for _ in range(marker_count)]
        opened = (schedule_activity(f"a{number}"), start_timer(f"t{number}", 600))
        await _run_task(bench, *markers, *opened)
        await bench.service.signal_workflow(NAMESPACE_ID, signal_request("w"))
    return started.run_id


def _of_base(**fields: Any) -> dict[str, Any]:
    return {
        "workflow_execution": {"workflow_id": "w"},
        "point": {"workflow_task": _LAST},
        "request_id": "once",
        **fields,
    }


async def _reset(bench: HistoryBench, **fields: Any) -> str:
    request = workflow_service_pb2.ResetWorkflowRequest(**_of_base(**fields))
    return (await bench.service.reset_workflow(NAMESPACE_ID, request)).run_id


async def _fork(bench: HistoryBench, **fields: Any) -> str:
    request = workflow_service_pb2.ForkWorkflowRequest(**_of_base(workflow_id="f", **fields))
    return (await bench.service.fork_workflow(NAMESPACE_ID, request)).run_id


async def test_long_run_is_taken_over_in_several_records_of_one_commit(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        base_id = await _make_base(bench, task_count=4, marker_count=2_000)
        new_id = await _reset(bench)
        fork_id = await _fork(bench, workflow_execution={"workflow_id": "w", "run_id": base_id})
    runs = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    base, new, fork = (runs[run_id] for run_id in (base_id, new_id, fork_id))
    assert new.record_count == fork.record_count == 8
    end = types(new.events).index("WORKFLOW_TASK_FAILED")
    assert end > 6_000
    assert new.events[1:end] == base.events[1:end] == fork.events[1:end]
    assert len(new.state.activities) == len(new.state.timers) == 3


async def test_new_run_is_offered_its_task_and_its_open_activities_once(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await _make_base(bench, task_count=3, marker_count=1_500)
        new_id = await _reset(bench)

        def offered() -> list[int]:
            refs = bench.matching.refs
            return [ref.scheduled_event_id for ref in refs if ref.run_id == new_id]

        await wait_until(lambda: len(offered()) >= 3, what="the tasks")
        assert len(offered()) == len(set(offered())) == 3


async def test_timer_of_the_base_whose_time_has_come_fires_in_the_new_run(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await _make_base(bench, task_count=2, marker_count=0)
        bench.advance(700)
        new_id = await _reset(bench)
        bench.advance(0.1)
        run = await bench.runs.load(NAMESPACE_ID, "w", new_id)
        await run.wait_committed()
        assert not run.state.timers
    runs = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert "TIMER_FIRED" in types(runs[new_id].events)


async def test_new_run_is_whole_at_the_next_host(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await _make_base(bench, task_count=3, marker_count=1_500)
        new_id = await _reset(bench)
    async with history_bench(migrated_postgres_dsn) as bench:
        ref = await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW)
        assert ref.run_id == new_id
        await _run_task_of(bench, ref)
        assert await _reset(bench, request_id="once") == new_id


async def _run_task_of(bench: HistoryBench, ref: Any) -> None:
    bench.matching.refs.insert(0, ref)
    await _run_task(bench)


@pytest.mark.damage
@pytest.mark.parametrize("verb", [_reset, _fork])
async def test_run_whose_log_was_altered_is_not_taken_over(
    migrated_postgres_dsn: str, verb: Any
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        base_id = await _make_base(bench, task_count=2, marker_count=1)
        await asyncio.to_thread(_alter, migrated_postgres_dsn, base_id)
        with pytest.raises(BrokenLogError, match="record 2: expected hash"):
            await verb(bench)
        assert len(await _runs_of(migrated_postgres_dsn)) == 1


def _alter(dsn: str, run_id: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "UPDATE log SET record = set_byte(record, 3, get_byte(record, 3) # 1)"
            " WHERE run_id = %s AND run_seq = 2",
            [run_id],
        )


async def _runs_of(dsn: str) -> list[Any]:
    def read() -> list[Any]:
        with psycopg.connect(dsn) as connection:
            return connection.execute("SELECT run_id FROM executions").fetchall()

    return await asyncio.to_thread(read)
