"""Stores that fail under a running server: Redis may lose everything, Postgres may go away."""

import asyncio
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import cast

import grpc
import pytest
import redis

from aetheris_server.embedded.redis import EmbeddedRedis
from tests.fault.conftest import NewServer
from tests.support.cutting_proxy import postgres_proxy
from tests.support.drive import drive_simple_workflow, persist
from tests.support.log_audit import audit_log
from tests.support.processes import ServerProcess, running
from tests.support.raw import (
    COMPLETED,
    Raw,
    complete_workflow,
    schedule_activity,
    types,
)
from tests.support.wait import wait_until


@pytest.fixture
def own_redis(tmp_path: Path) -> Generator[EmbeddedRedis]:
    """A Redis that this test may harm."""
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="redis-") as sockets:
        server = EmbeddedRedis(tmp_path / "redis", Path(sockets))
        server.start()
        yield server
        server.stop()


async def test_backlog_that_is_flushed_comes_back(
    new_server: NewServer, own_redis: EmbeddedRedis, migrated_postgres_dsn: str
) -> None:
    process = new_server(redis=own_redis.url)
    async with running(process), Raw(process.address) as server:
        for _ in range(10):
            await server.start_run()
        # Of these the activities wait, of the others the workflow tasks.
        for _ in range(5):
            await server.decide(await server.poll_workflow(), schedule_activity())
        await _wait_for_backlog(own_redis)
        with redis.Redis.from_url(own_redis.url) as client:
            client.flushall()
        ended: set[str] = set()
        working = asyncio.create_task(_act(server))
        while len(ended) < 10:
            task = await server.poll_workflow(wait=20.0)
            if "ACTIVITY_TASK_COMPLETED" in types(task.history.events):
                await server.decide(task, complete_workflow())
                ended.add(task.workflow_execution.run_id)
            else:
                await server.decide(task, schedule_activity())
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert {types(run.events)[-1] for run in audited.values()} == {"WORKFLOW_EXECUTION_COMPLETED"}


@pytest.mark.parametrize("doomed", ["*}:*", "*}:sub*", "*}:sub:*", "*}:subs"])
async def test_backlog_that_loses_some_of_its_keys_comes_back(
    new_server: NewServer, own_redis: EmbeddedRedis, migrated_postgres_dsn: str, doomed: str
) -> None:
    process = new_server(redis=own_redis.url)
    async with running(process), Raw(process.address) as server:
        for _ in range(20):
            await server.start_run()
        with redis.Redis.from_url(own_redis.url) as client:
            keys = cast("Callable[[str], list[bytes]]", client.keys)
            count = cast("Callable[[bytes], int]", client.zcard)
            await wait_until(lambda: sum(map(count, keys("*}:sub:*"))) == 20, 10, "a backlog")
            # A poll has the server look at what there is, so that it can tell what is missing.
            await server.decide(await server.poll_workflow(), complete_workflow())
            client.delete(*await wait_until(lambda: keys(doomed)))
        async with asyncio.timeout(10.0):
            for _ in range(19):
                await server.decide(await server.poll_workflow(wait=10.0), complete_workflow())
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert {types(run.events)[-1] for run in audited.values()} == {"WORKFLOW_EXECUTION_COMPLETED"}


async def _wait_for_backlog(own_redis: EmbeddedRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        await wait_until(lambda: client.dbsize() > 1, 10, "a backlog")


async def _act(server: Raw) -> None:
    while True:
        for task in (await server.poll_activities(5.0, max_tasks=5)).tasks:
            await server.complete_activity(task)


async def test_run_ends_with_redis_gone_and_back(
    new_server: NewServer, own_redis: EmbeddedRedis, migrated_postgres_dsn: str
) -> None:
    process = new_server(redis=own_redis.url)
    async with running(process), Raw(process.address) as server:
        waiting = await server.start_run()
        await _wait_for_backlog(own_redis)
        own_redis.stop()
        # A task finds a worker that waits without Redis.
        polling = asyncio.create_task(server.poll_workflow())
        run = await server.start_run()
        task = await polling
        assert task.workflow_execution == run
        await server.decide(task, complete_workflow())
        own_redis.start()
        task = await server.poll_workflow(wait=20.0)
        assert task.workflow_execution == waiting
        await server.decide(task, complete_workflow())
        driven = await drive_simple_workflow(server)
        assert driven.result.status == COMPLETED
    await asyncio.to_thread(audit_log, migrated_postgres_dsn)


async def test_lost_answers_of_postgres_lose_and_repeat_nothing(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    async with postgres_proxy(migrated_postgres_dsn) as (proxy, dsn):
        process = new_server(dsn)
        async with running(process), Raw(process.address) as server:
            acknowledged: list[str] = []
            for number in range(30):
                # Sometimes it hits the commit, sometimes the lease, sometimes a read.
                proxy.drops_next_reply = True
                if number % 5 == 0:
                    proxy.cut()
                run = await persist(server.start_run)
                await persist(lambda run=run: server.signal(run, request_id="once"))
                acknowledged.append(run.run_id)
            proxy.drops_next_reply = False
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    for run_id in acknowledged:
        assert types(audited[run_id].events).count("WORKFLOW_EXECUTION_SIGNALED") == 1


async def test_writes_without_postgres_are_unavailable_and_then_go_on(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    async with postgres_proxy(migrated_postgres_dsn) as (proxy, dsn):
        process = new_server(dsn, AETHERIS_POSTGRES__STATEMENT_TIMEOUT="1s")
        async with running(process), Raw(process.address) as server:
            run = await server.start_run()
            proxy.is_refusing = True
            proxy.cut()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.signal(run, request_id="once")
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            proxy.is_refusing = False
            await persist(lambda: server.signal(run, request_id="once"))
            driven = await drive_simple_workflow(server)
            assert driven.result.status == COMPLETED
            assert process.is_running
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert types(audited[run.run_id].events).count("WORKFLOW_EXECUTION_SIGNALED") == 1


async def test_attempt_to_connect_that_meets_silence_holds_up_writes_for_a_moment_only(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    async with postgres_proxy(migrated_postgres_dsn) as (proxy, dsn):
        process = new_server(dsn)
        async with running(process), Raw(process.address) as server:
            run = await server.start_run()
            seen = proxy.connection_count
            proxy.is_ignoring = True
            proxy.cut()
            signalling = asyncio.create_task(persist(lambda: server.signal(run, request_id="once")))
            # The one for writes is among them.
            await wait_until(lambda: proxy.connection_count >= seen + 3)
            proxy.is_ignoring = False
            async with asyncio.timeout(8.0):
                await signalling
    audited = await asyncio.to_thread(audit_log, migrated_postgres_dsn)
    assert types(audited[run.run_id].events).count("WORKFLOW_EXECUTION_SIGNALED") == 1


async def test_host_that_was_cut_off_forgets_what_another_has_written(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    async with postgres_proxy(migrated_postgres_dsn) as (proxy, dsn):
        # One shard, so that the two runs share it.
        settings = {
            "AETHERIS_HISTORY__SHARD_COUNT": "1",
            "AETHERIS_POSTGRES__STATEMENT_TIMEOUT": "1s",
        }
        cut_off, other = new_server(dsn, **settings), new_server(**settings)
        async with running(cut_off), Raw(cut_off.address) as first:
            touched, cached = await first.start_run(), await first.start_run()
            proxy.is_refusing = True
            proxy.cut()
            # Fails, so that the host gives up the shard and keeps `cached`, which was not touched.
            with pytest.raises(grpc.aio.AioRpcError):
                await first.signal(touched)
            async with running(other), Raw(other.address) as second:
                for name in ("one", "two"):
                    await persist(lambda name=name: second.signal(cached, name))
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await first.describe(cached)
                assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
                assert await other.terminate() == 0, other.output
            proxy.is_refusing = False
            await persist(lambda: first.signal(cached, "three"))
            events = await persist(lambda: first.history(cached))
            assert types(events).count("WORKFLOW_EXECUTION_SIGNALED") == 3
    await asyncio.to_thread(audit_log, migrated_postgres_dsn)


async def test_takeover_with_postgres_failing_on_and_off_recovers_everything(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    async with postgres_proxy(migrated_postgres_dsn) as (proxy, dsn):
        process: ServerProcess = new_server(dsn)
        async with running(process), Raw(process.address) as server:
            runs = [await server.start_run() for _ in range(20)]
            await process.kill()
            process.launch()
            for connections in range(1, 6):
                # Cut as soon as it has got a little further.
                seen = proxy.connection_count + 1
                await wait_until(
                    lambda seen=seen: proxy.connection_count >= seen or not process.is_running,
                    20,
                    f"the server to connect again, after {connections - 1} times",
                )
                proxy.cut()
            try:
                await process.wait_ready()
            except AssertionError:
                # To give up before it is ready is an orderly answer too.
                assert await process.wait_exit() == 1
                await process.start()
            ended: set[str] = set()
            while len(ended) < len(runs):
                task = await persist(server.poll_workflow)
                await persist(lambda task=task: server.decide(task, complete_workflow()))
                ended.add(task.workflow_execution.run_id)
    await asyncio.to_thread(audit_log, migrated_postgres_dsn)
