"""Pins and default builds while servers are killed, hosts come and go, and Redis is emptied."""

import asyncio
import secrets
import tempfile
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest
import redis

from aetheris_server.embedded.redis import EmbeddedRedis
from tests.fault.conftest import NewServer
from tests.fault.test_kill_matrix import CrashServer, crash_server
from tests.support.drive import persist
from tests.support.log_audit import audit_log
from tests.support.processes import running
from tests.support.raw import Raw, complete_workflow, schedule_activity, types
from tests.support.wait import wait_until

pytestmark = pytest.mark.long

__all__ = ["crash_server"]

_MOMENT = 0.4
_UPDATED = "WORKFLOW_EXECUTION_OPTIONS_UPDATED"


@pytest.fixture
def own_redis(tmp_path: Path) -> Generator[EmbeddedRedis]:
    """A Redis that this test may harm."""
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="redis-") as sockets:
        server = EmbeddedRedis(tmp_path / "redis", Path(sockets))
        server.start()
        yield server
        server.stop()


async def gets_nothing(server: Raw, build_id: str) -> bool:
    return not await persist(lambda: server.poll_workflows(_MOMENT, worker_version=build_id))


@pytest.mark.parametrize("point, count", [("update_options", 1), ("commit", 2)])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_move_with_server_killed_is_recorded_once_and_holds(
    crash_server: CrashServer, point: str, count: int, moment: str
) -> None:
    await crash_server.begin_round(f"{point}.{moment}", count)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        run = await persist(lambda: server.start_run(pinned_build_id="b1", request_id="start"))
        assert await persist(lambda: server.pin(run, "b2", request_id="once")) == "b2"
        await wait_until(crash_server.has_died, 10, "the server to die")
        assert await persist(lambda: server.pin(run, "b2", request_id="once")) == "b2"
        assert await gets_nothing(server, "b1")
        task = await persist(lambda: server.poll_workflow(worker_version="b2"))
        assert task.workflow_execution == run
        await persist(lambda: server.decide(task, complete_workflow(), worker_version="b2"))
    audited = (await asyncio.to_thread(audit_log, crash_server.dsn))[run.run_id]
    assert types(audited.events).count(_UPDATED) == 1


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_change_of_a_default_with_server_killed_holds_from_its_answer_on(
    crash_server: CrashServer, moment: str
) -> None:
    await crash_server.begin_round(f"update_task_queue.{moment}", 1)
    async with Raw(crash_server.address, queue=f"q-{secrets.token_hex(4)}") as server:
        assert await persist(lambda: server.prefer("b2", request_id="once")) == "b2"
        await wait_until(crash_server.has_died, 10, "the server to die")
        run = await persist(server.start_run)
        assert await gets_nothing(server, "b1")
        task = await persist(lambda: server.poll_workflow(worker_version="b2"))
        assert task.workflow_execution == run
        assert await persist(lambda: server.prefer("b1")) == "b1"
        assert await persist(lambda: server.prefer("b2", request_id="once")) == "b1"


async def test_host_that_takes_over_queues_knows_what_they_prefer(
    new_server: NewServer, migrated_postgres_dsn: str
) -> None:
    one, two = new_server(), new_server()
    async with running(one, two), Raw(one.address) as server:
        queues = [f"q-{number}" for number in range(8)]
        runs = {}
        for queue in queues:
            # Half of them are set by the host that is killed.
            async with Raw((one, two)[len(runs) % 2].address, queue=queue) as setter:
                await setter.prefer("b2")
                runs[queue] = await setter.start_run()
        await two.kill()
        await _wait_alone(migrated_postgres_dsn)
        for queue in queues:
            async with Raw(one.address, queue=queue) as poller:
                assert await gets_nothing(poller, "b1")
                task = await persist(lambda p=poller: p.poll_workflow(worker_version="b2"))
                assert task.workflow_execution == runs[queue]
                queue_now = await persist(poller.describe_queue)
                assert queue_now.default_build_id == "b2"
        del server


async def _wait_alone(dsn: str) -> None:
    def is_alone() -> bool:
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SELECT count(*) FROM hosts").fetchone()
        return row == (1,)

    await wait_until(lambda: asyncio.to_thread(is_alone), 20, "the dead host to be buried")


async def test_hosts_that_have_a_run_follow_what_its_queue_prefers(new_server: NewServer) -> None:
    one, two = new_server(), new_server()
    async with running(one, two), Raw(one.address) as server:
        for number in range(8):
            async with Raw((one, two)[number % 2].address, queue=f"q-{number}") as setter:
                await _take_along_until_changed(setter)
        del server


async def _take_along_until_changed(server: Raw) -> None:
    """A worker takes each next task along with an answer, until its queue prefers another build."""
    run = await server.start_run()
    task = await server.poll_workflow(worker_version="b1", sticky="s1")

    async def is_over() -> bool:
        nonlocal task
        await server.decide(task, schedule_activity(), worker_version="b1", sticky="s1")
        activity_task = await server.poll_activity()
        answer = await server.complete_activity(activity_task, sticky_task_queue="s1")
        task = answer.workflow_task
        return not answer.HasField("workflow_task")

    assert not await is_over()
    await server.prefer("b2")
    await wait_until(is_over, 5, "the run's host to know")
    task = await server.poll_workflow(worker_version="b2")
    assert task.workflow_execution == run


async def test_pinned_tasks_of_a_redis_that_lost_all_come_back_to_their_build(
    new_server: NewServer, own_redis: EmbeddedRedis
) -> None:
    process = new_server(redis=own_redis.url)
    async with running(process), Raw(process.address) as server:
        pinned = await server.start_run(pinned_build_id="b1")
        moved = await server.start_run(pinned_build_id="b1")
        await server.pin(moved, "b2")
        free = await server.start_run()
        await server.prefer("b3")
        with redis.Redis.from_url(own_redis.url) as client:
            await wait_until(lambda: len(client.keys("*:sub:*")) >= 3, 10, "the tasks in Redis")
            client.flushall()
        assert await gets_nothing(server, "b4")
        for build_id, run in (("b1", pinned), ("b2", moved), ("b3", free)):
            task = await server.poll_workflow(wait=20.0, worker_version=build_id)
            assert task.workflow_execution == run
