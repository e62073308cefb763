"""A server that ends in order, and one that does not: what clients see of it."""

import asyncio
import secrets
import signal
from collections.abc import Callable
from pathlib import Path

import grpc
import psycopg
import pytest

from aetheris.api.v1 import common_pb2, operator_service_pb2, task_queue_pb2
from tests.support.drive import persist
from tests.support.log_audit import audit_log
from tests.support.processes import FAST, ServerProcess, Stopwatch, running, start_arguments
from tests.support.raw import (
    COMPLETED,
    Raw,
    complete_workflow,
    record_marker,
    schedule_activity,
    seconds,
    start_timer,
    text_of,
    types,
)
from tests.support.wait import wait_until

NewServer = Callable[..., ServerProcess]


@pytest.fixture
def new_server(migrated_postgres_dsn: str, redis_url: str, tmp_path: Path) -> NewServer:
    prefix = f"restarts-{secrets.token_hex(4)}"

    def make(**settings: str) -> ServerProcess:
        return ServerProcess(
            tmp_path,
            start_arguments(migrated_postgres_dsn, redis_url),
            {**FAST, "AETHERIS_REDIS__KEY_PREFIX": prefix, **settings},
        )

    return make


async def test_sigterm_drains_and_the_next_start_is_immediate(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    process = new_server(AETHERIS_HISTORY__LEASE_TIMEOUT="60s")
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        await server.decide(await server.poll_workflow(), schedule_activity())
        polls = [asyncio.create_task(server.poll_workflows(30.0)) for _ in range(3)]
        waiting = asyncio.create_task(server.result(run, wait=30.0))
        await _wait_for_polls(server, 3)
        watch = Stopwatch()
        assert await process.terminate() == 0, process.output
        assert watch.seconds < 5
        assert [len(await poll) for poll in polls] == [0, 0, 0]
        assert await waiting is None
        with psycopg.connect(migrated_postgres_dsn) as connection:
            owned = connection.execute("SELECT count(*) FROM shards WHERE host_id IS NOT NULL")
            assert owned.fetchone() == (0,)
            assert connection.execute("SELECT count(*) FROM hosts").fetchone() == (0,)
        watch = Stopwatch()
        await process.start()
        await server.complete_activity(await server.poll_activity(), "x")
        assert watch.seconds < 10
        await server.decide(await server.poll_workflow(), complete_workflow())
        assert "Traceback" not in process.output


async def _wait_for_polls(server: Raw, count: int) -> None:
    async def waiting() -> bool:
        described = await server.operators.DescribeTaskQueue(
            operator_service_pb2.DescribeTaskQueueRequest(
                namespace="default",
                task_queue=server.queue,
                task_queue_type=task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW,
            )
        )
        return sum(poller.waiting_poll_count for poller in described.pollers) >= count

    await wait_until(waiting, 10, f"{count} polls to wait")


async def test_writes_in_flight_at_sigterm_are_acknowledged_or_absent(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    process = new_server()
    acknowledged: list[str] = []
    async with running(process), Raw(process.address) as server:

        async def start_some() -> None:
            while True:
                try:
                    acknowledged.append((await server.start()).run_id)
                except grpc.aio.AioRpcError as error:
                    assert error.code() == grpc.StatusCode.UNAVAILABLE, error  # noqa: PT017
                    return

        starting = [asyncio.create_task(start_some()) for _ in range(8)]
        await wait_until(lambda: len(acknowledged) > 50, 20)
        process.send(signal.SIGTERM)
        assert await process.wait_exit() == 0, process.output
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
    runs = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert set(acknowledged) <= set(runs)


async def test_result_wait_goes_on_over_a_kill(new_server: NewServer) -> None:
    process = new_server()
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        await server.decide(await server.poll_workflow(), start_timer("t", 2.0))
        waiting = asyncio.create_task(_persistent_result(server, run))
        await process.restart()
        await server.decide(await server.poll_workflow(), complete_workflow("after"))
        result = await waiting
        assert result.status == COMPLETED
        assert text_of(result.result) == "after"


async def _persistent_result(server: Raw, run):
    while True:
        result = await persist(lambda: server.result(run, wait=10.0))
        if result is not None:
            return result


async def test_activity_outlives_the_server_that_gave_it_out(new_server: NewServer) -> None:
    process = new_server()
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        await server.decide(
            await server.poll_workflow(), schedule_activity(start_to_close_timeout=seconds(600))
        )
        task = await server.poll_activity()
        await process.restart()
        assert not await server.heartbeat(task, "alive")
        assert not (await server.poll_activities(0.5)).tasks
        await server.complete_activity(task, "late")
        await server.decide(await server.poll_workflow(), complete_workflow())
        assert types(await server.history(run)).count("ACTIVITY_TASK_COMPLETED") == 1


async def test_backoff_and_timers_survive_a_kill(new_server: NewServer) -> None:
    process = new_server()
    async with running(process), Raw(process.address) as server:
        await server.start_run()
        await server.decide(
            await server.poll_workflow(),
            start_timer("t", 1.0),
            schedule_activity(retry_policy=common_pb2.RetryPolicy(initial_interval=seconds(1.0))),
        )
        await server.fail_activity(await server.poll_activity())
        await process.restart()
        task = await server.poll_activity()
        assert task.attempt == 2
        await server.complete_activity(task)
        events: list[str] = []
        while not {"TIMER_FIRED", "ACTIVITY_TASK_COMPLETED"} <= set(events):
            task = await server.poll_workflow()
            events = types(task.history.events)
            await server.decide(task)


async def test_long_run_is_loaded_from_its_snapshot(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    process = new_server(AETHERIS_HISTORY__SNAPSHOT_INTERVAL_RECORDS="64")
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        task = await server.poll_workflow()
        await server.decide(task, *(record_marker(f"{n}") for n in range(600)))
        for number in range(300):
            await server.signal(run, f"{number}")
        await process.restart()
        await server.signal(run, "after")
        assert await asyncio.to_thread(_records_behind_snapshot, migrated_postgres_dsn) <= 64
        task = await server.poll_workflow()
        assert task.next_page_token
        rest = await server.history(run, token=task.next_page_token)
        ids = [event.event_id for event in (*task.history.events, *rest)]
        assert ids == list(range(1, task.started_event_id + 1))
        await server.decide(task, complete_workflow())
    runs = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert len(runs[run.run_id].events) == len(ids) + 2


def _records_behind_snapshot(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT max(l.run_seq) - max(s.run_seq) FROM log l, snapshots s"
        ).fetchone()
    assert row is not None
    return int(row[0])
