"""Several servers on one database: shards spread, move and are fenced."""

import asyncio
import signal
import socket
import uuid

import grpc
import psycopg
import pytest

from aetheris.api.v1 import common_pb2
from aetheris_server.ids import shard_of
from tests.fault.conftest import NewServer
from tests.support.drive import Driven, drive_simple_workflow, persist
from tests.support.log_audit import audit_log
from tests.support.processes import ServerProcess, Stopwatch, running
from tests.support.raw import (
    COMPLETED,
    Raw,
    complete_workflow,
    schedule_activity,
    start_timer,
    types,
)
from tests.support.wait import wait_until


def _owners(dsn: str) -> dict[int, str]:
    """The address of the host of each shard that has a live one."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT s.shard_id, h.address FROM shards s JOIN hosts h USING (host_id)"
            " WHERE h.expire_time > now()"
        ).fetchall()
    return {row[0]: row[1] for row in rows}


async def _wait_spread(dsn: str, *servers: ServerProcess) -> None:
    """Until every server has shards, and nobody else."""

    async def is_spread() -> bool:
        owners = await asyncio.to_thread(_owners, dsn)
        return len(owners) == 16 and set(owners.values()) == {s.internal_address for s in servers}

    await wait_until(is_spread, 20, "the shards to be spread")


@pytest.fixture
def pair(new_server: NewServer) -> tuple[ServerProcess, ServerProcess]:
    settings = {"AETHERIS_HISTORY__SHARD_COUNT": "16"}
    return new_server(**settings), new_server(**settings)


async def test_requests_to_either_host_reach_the_run(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str
) -> None:
    one, two = pair
    async with running(one, two):
        await _wait_spread(migrated_postgres_dsn, one, two)
        async with Raw(one.address) as first, Raw(two.address) as second:
            for number in range(8):
                asks, works = (first, second) if number % 2 else (second, first)
                run = await asks.start_run()
                await asks.signal(run)
                await works.decide(await works.poll_workflow(), schedule_activity())
                await works.heartbeat(task := await asks.poll_activity())
                await works.complete_activity(task)
                await asks.decide(await asks.poll_workflow(), complete_workflow())
                result = await works.result(run)
                assert result is not None
                assert result.status == COMPLETED
    await asyncio.to_thread(audit_log, migrated_postgres_dsn)


async def test_forks_and_resets_by_either_host_reach_runs_of_all_shards(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str
) -> None:
    one, two = pair
    async with running(one, two):
        await _wait_spread(migrated_postgres_dsn, one, two)
        owners = await asyncio.to_thread(_owners, migrated_postgres_dsn)
        async with Raw(one.address) as first, Raw(two.address) as second:
            namespace_id = await first.namespace_id()
            crossed: set[tuple[str, str]] = set()
            for number in range(12):
                asks, works = (first, second) if number % 2 else (second, first)
                base = await asks.start_run()
                await works.decide(await works.poll_workflow(), schedule_activity())
                await works.signal(base, "later")
                fork = await asks.fork(base)
                new = await works.reset(base)
                for run in (fork, new):
                    assert types(await asks.history(run))[-3:] == [
                        "WORKFLOW_TASK_FAILED",
                        "WORKFLOW_EXECUTION_SIGNALED",
                        "WORKFLOW_TASK_SCHEDULED",
                    ]
                shards = [shard_of(namespace_id, run.workflow_id, 16) for run in (base, fork)]
                crossed.add((owners[shards[0]], owners[shards[1]]))
                for _ in range(2):
                    await works.decide(await works.poll_workflow(), complete_workflow())
            assert any(base_host != fork_host for base_host, fork_host in crossed)
    await asyncio.to_thread(audit_log, migrated_postgres_dsn)


async def test_host_that_is_killed_loses_its_shards_and_no_run(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str
) -> None:
    one, two = pair
    async with running(one, two), Raw(one.address) as survivor:
        await _wait_spread(migrated_postgres_dsn, one, two)
        runs = [await survivor.start_run() for _ in range(12)]
        for _ in runs:
            await survivor.decide(await survivor.poll_workflow(), schedule_activity())
        await two.kill()
        watch = Stopwatch()
        await _wait_spread(migrated_postgres_dsn, one)
        assert watch.seconds < 8
        done: set[str] = set()
        while len(done) < len(runs):
            task = await persist(survivor.poll_activity)
            await survivor.complete_activity(task)
            done.add(task.workflow_execution.run_id)
            await survivor.decide(await persist(survivor.poll_workflow), complete_workflow())
        for run in runs:
            assert await survivor.result(run) is not None
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert all(types(audited[run.run_id].events)[-1].endswith("COMPLETED") for run in runs)


async def test_host_that_joins_takes_its_share_while_runs_go_on(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str
) -> None:
    one, two = pair
    async with running(one), Raw(one.address) as server:
        driving = [asyncio.create_task(_drive(server, f"queue-{number}")) for number in range(4)]
        async with running(two):
            await _wait_spread(migrated_postgres_dsn, one, two)
            driven = await asyncio.gather(*driving)
            assert await two.terminate() == 0, two.output
            await _wait_spread(migrated_postgres_dsn, one)
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert all(run.run.run_id in audited for run in driven)


async def _drive(server: Raw, queue: str) -> Driven:
    async with Raw(server.address, queue=queue) as connection:
        return await drive_simple_workflow(connection)


async def test_paused_host_that_wakes_cannot_write_and_shows_nothing_old(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str
) -> None:
    one, two = pair
    async with running(one, two), Raw(one.address) as first, Raw(two.address) as second:
        await _wait_spread(migrated_postgres_dsn, one, two)
        owners = await asyncio.to_thread(_owners, migrated_postgres_dsn)
        runs = await _runs_of(first, migrated_postgres_dsn, two.internal_address, owners)
        tasks = {}
        for _ in runs:
            task = await first.poll_workflow()
            tasks[task.workflow_execution.run_id] = task
        two.send(signal.SIGSTOP)
        # Sent while it sleeps, answered, if at all, when it wakes.
        asleep = [
            asyncio.create_task(second.signal(run, "asleep", request_id=f"asleep-{run.run_id}"))
            for run in runs
        ]
        await _wait_spread_to(migrated_postgres_dsn, one)
        for run in runs:
            await persist(lambda run=run: first.signal(run, "taken"))
        two.send(signal.SIGCONT)
        described = await asyncio.gather(
            *(persist(lambda run=run: second.history(run)) for run in runs)
        )
        for events in described:
            assert "WORKFLOW_EXECUTION_SIGNALED" in types(events), "an old state was shown"
        answers = await asyncio.gather(*asleep, return_exceptions=True)
        # The task was given out by the host that lost the shard: it is void.
        for run in runs:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await persist(lambda run=run: first.decide(tasks[run.run_id]))
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    for run, answer in zip(runs, answers, strict=True):
        names = [
            event.workflow_execution_signaled_event_attributes.signal_name
            for event in audited[run.run_id].events
            if event.HasField("workflow_execution_signaled_event_attributes")
        ]
        assert names.count("taken") == 1
        assert names.count("asleep") <= 1
        if answer is None:
            assert names.count("asleep") == 1, "an acknowledged write is gone"


async def _wait_spread_to(dsn: str, server: ServerProcess) -> None:
    await wait_until(
        lambda: set(_owners(dsn).values()) == {server.internal_address} and len(_owners(dsn)) == 16,
        20,
        "the shards to be taken",
    )


async def _runs_of(
    server: Raw, dsn: str, address: str, owners: dict[int, str]
) -> list[common_pb2.WorkflowExecution]:
    """Three runs in shards of one host."""
    runs: list[common_pb2.WorkflowExecution] = []
    while len(runs) < 3:
        run = common_pb2.WorkflowExecution(workflow_id=f"w-{uuid.uuid4()}")
        queue, server.queue = server.queue, f"other-{uuid.uuid4()}"
        started = await server.start(run.workflow_id)
        server.queue = queue
        run.run_id = started.run_id
        with psycopg.connect(dsn) as connection:
            row = connection.execute(
                "SELECT shard_id FROM executions WHERE run_id = %s", [run.run_id]
            ).fetchone()
        assert row is not None
        if owners[row[0]] == address:
            await server.terminate(run)
            again = await server.start(run.workflow_id)
            runs.append(
                common_pb2.WorkflowExecution(workflow_id=run.workflow_id, run_id=again.run_id)
            )
    return runs


async def test_timer_of_a_host_that_died_fires_at_the_other(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str
) -> None:
    one, two = pair
    async with running(one, two), Raw(one.address) as server:
        await _wait_spread(migrated_postgres_dsn, one, two)
        runs = [await server.start_run() for _ in range(8)]
        for _ in runs:
            await server.decide(await server.poll_workflow(), start_timer("t", 3.0))
        await two.kill()
        woken: set[str] = set()
        while len(woken) < len(runs):
            task = await persist(server.poll_workflow)
            await server.decide(task, complete_workflow())
            woken.add(task.workflow_execution.run_id)
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert all(types(audited[run.run_id].events).count("TIMER_FIRED") == 1 for run in runs)


async def test_host_with_the_address_of_a_live_one_ends_and_harms_no_run(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    first = new_server()
    async with running(first), Raw(first.address) as server:
        second = new_server(AETHERIS_INTERNAL__ADVERTISED_ADDRESS=first.internal_address)
        second.launch()
        try:
            while second.is_running:
                driven = await drive_simple_workflow(server)
                assert driven.result.status == COMPLETED
            assert await second.wait_exit() == 2, second.output
        finally:
            await second.kill()
        assert "internal.advertised_address" in second.output
        assert "is not reached at the address" in second.output
        assert "another host has this host's address" not in first.output
    await asyncio.to_thread(audit_log, migrated_postgres_dsn)


async def test_host_that_is_reached_through_another_address_is_back_at_once(
    new_server: NewServer,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    # A lease that would have to run out first if nothing told that the old process is gone.
    settings = {"AETHERIS_HISTORY__LEASE_TIMEOUT": "60s"}
    process = new_server(AETHERIS_INTERNAL__ADVERTISED_ADDRESS=f"localhost:{port}", **settings)
    process.internal_address = f"127.0.0.1:{port}"
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        await process.kill()
        watch = Stopwatch()
        await process.start()
        assert (await server.describe(run)).workflow_execution_info.execution == run
        assert watch.seconds < 30


async def test_host_of_another_cluster_at_the_address_of_a_dead_one_serves_nothing(
    new_server: NewServer, migrated_postgres_dsn: str, other_postgres_dsn: str
) -> None:
    # The dead one stays in the tables for as long as the test takes.
    settings = {"AETHERIS_HISTORY__SHARD_COUNT": "16", "AETHERIS_HISTORY__LEASE_TIMEOUT": "60s"}
    one, two = new_server(**settings), new_server(**settings)
    stranger = new_server(other_postgres_dsn)
    async with running(one, two), Raw(one.address) as server:
        await _wait_spread(migrated_postgres_dsn, one, two)
        owners = await asyncio.to_thread(_owners, migrated_postgres_dsn)
        runs = await _runs_of(server, migrated_postgres_dsn, two.internal_address, owners)
        await two.kill()
        stranger.internal_address = two.internal_address
        async with running(stranger):
            signals = [asyncio.create_task(server.signal(run)) for run in runs]
            await wait_until(lambda: "of another cluster" in one.output, 20, "the refusal")
            for signalling in signals:
                signalling.cancel()
            await asyncio.gather(*signals, return_exceptions=True)
            assert stranger.internal_address in one.output
    assert not await asyncio.to_thread(audit_log, other_postgres_dsn)
