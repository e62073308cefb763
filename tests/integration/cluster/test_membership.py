"""One host and its lease on a real Postgres, in real time."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

import psycopg
import pytest
from prometheus_client import REGISTRY

from aetheris.api.v1 import common_pb2, task_queue_pb2, workflow_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.cluster import readiness
from aetheris_server.config import PostgresSettings
from aetheris_server.errors import ShardNotOwnedError
from aetheris_server.loops import end_tasks
from aetheris_server.storage.database import Database
from aetheris_server.storage.hosts import load_live_hosts, register_host
from aetheris_server.storage.shards import acquire_shards, load_shards
from tests.support.clock import ManualClock
from tests.support.cutting_proxy import postgres_proxy
from tests.support.history_host import NAMESPACE_ID, SHARD_COUNT, HistoryBench, history_bench
from tests.support.raw import seconds
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_LEASE = 1.0


def _bench(dsn: str, **settings: Any):
    clock = cast("ManualClock", SystemClock())
    return history_bench(dsn, clock, lease_timeout=_LEASE, heartbeat_interval=0.1, **settings)


@pytest.fixture
async def db(migrated_postgres_dsn: str) -> AsyncGenerator[Database]:
    """Beside the host: what another host does."""
    async with Database(PostgresSettings(dsn=migrated_postgres_dsn)) as database:
        yield database


@asynccontextmanager
async def _locked(dsn: str, table: str) -> AsyncGenerator[None]:
    """Nobody else can read or write a table until the block is left."""
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE".encode())
        yield


async def _start(bench: HistoryBench, workflow_id: str) -> None:
    request = workflow_service_pb2.StartWorkflowRequest(
        workflow_id=workflow_id,
        workflow_type=common_pb2.WorkflowType(name="Flow"),
        task_queue=task_queue_pb2.TaskQueue(name="queue"),
        workflow_task_timeout=seconds(10),
        request_id=workflow_id,
    )
    await bench.service.start_workflow(NAMESPACE_ID, request)


async def _check_renewals(bench: HistoryBench, db: Database) -> None:
    """Hold that the lease does not lapse for longer than it lasts."""
    begin = asyncio.get_running_loop().time()
    lapsed = False

    def has_passed() -> bool:
        nonlocal lapsed
        lapsed |= not bench.host.membership.lease.is_valid
        return asyncio.get_running_loop().time() - begin > 2.5 * _LEASE

    await wait_until(has_passed)
    (host,) = await load_live_hosts(db)
    assert host.expire_time > datetime.now(UTC)
    assert not lapsed


@pytest.mark.parametrize("table", ["shards", "executions", "log"])
async def test_lease_is_renewed_whatever_else_waits(
    migrated_postgres_dsn: str, db: Database, table: str
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        await _start(bench, "a")
        async with _locked(migrated_postgres_dsn, table):
            # A commit that hangs, if it is not the shards that do, and for which settling waits.
            writing = asyncio.create_task(_start(bench, "b"))
            await _check_renewals(bench, db)
            bench.engine.find_shard(NAMESPACE_ID, "a")
        await writing


async def test_lease_is_renewed_while_no_connection_is_free(
    migrated_postgres_dsn: str, db: Database
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        sleeps = [
            asyncio.create_task(bench.db.fetch(f"SELECT pg_sleep({4 * _LEASE})"))
            for _ in range(PostgresSettings().pool_max_size)
        ]
        await _check_renewals(bench, db)
        assert not any(sleep.done() for sleep in sleeps)
        await asyncio.gather(*sleeps)


async def test_host_that_was_buried_forgets_its_shards_and_joins_anew(
    migrated_postgres_dsn: str, db: Database
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        await _start(bench, "a")
        run = await bench.runs.load(NAMESPACE_ID, "a")
        # By one that dies at once, having taken what it could.
        await db.fetch(
            "WITH gone AS (DELETE FROM hosts)"
            " UPDATE shards SET host_id = 'other', range_id = range_id + 1"
        )
        await wait_until(lambda: run.is_dropped)
        await wait_until(lambda: bench.host.membership.is_ready)
        assert {shard.host_id for shard in await load_shards(db)} == {bench.host.membership.host_id}
        again = await bench.runs.load(NAMESPACE_ID, "a")
        assert again is not run


async def test_host_whose_lease_is_not_renewed_is_not_ready_until_it_is(
    migrated_postgres_dsn: str, db: Database
) -> None:
    async with postgres_proxy(migrated_postgres_dsn) as (proxy, dsn), _bench(dsn) as bench:
        await _start(bench, "a")
        run = await bench.runs.load(NAMESPACE_ID, "a")
        proxy.is_holding = True
        await wait_until(lambda: not bench.host.membership.is_ready)
        assert "lease" in (bench.host.membership.waits_for or "")
        with pytest.raises(ShardNotOwnedError):
            bench.engine.find_shard(NAMESPACE_ID, "a")
        proxy.is_holding = False
        await wait_until(lambda: bench.host.membership.is_ready)
        # Nobody had the shards meanwhile, so what is in memory is good.
        assert await bench.runs.load(NAMESPACE_ID, "a") is run


async def test_host_at_the_address_of_another_serves_nothing_and_says_so(
    migrated_postgres_dsn: str, db: Database
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        await db.fetch("UPDATE hosts SET host_id = 'other', expire_time = now() + interval '1 h'")
        await wait_until(lambda: "address" in (bench.host.membership.waits_for or ""))
        assert not bench.engine.shards
        assert REGISTRY.get_sample_value("aetheris_owned_shards") == 0


async def test_host_that_has_left_does_not_come_back(
    migrated_postgres_dsn: str, db: Database
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        # As when a host ends, but that renewals of its lease still come.
        await end_tasks(bench.host._shard_loops)
        await bench.host.membership.leave()
        await wait_until(lambda: bench.host.membership.ownership.term > 1, 3, "two more renewals")
        assert await load_live_hosts(db) == []
        assert {shard.host_id for shard in await load_shards(db)} == {None}


async def test_shard_that_is_ours_by_its_row_alone_is_given_up_if_another_should_have_it(
    migrated_postgres_dsn: str, db: Database
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        await register_host(db, "other", "other:1", 60.0)
        await wait_until(lambda: len(bench.engine.shards) < SHARD_COUNT)
        (given_up, *_) = set(range(SHARD_COUNT)) - bench.engine.shards.keys()
        # As if its release had failed half-way.
        await acquire_shards(
            db, bench.host.membership.host_id, [given_up], lambda *_: (b"note", bytes(32))
        )

        async def is_free() -> bool:
            return (await load_shards(db))[given_up].host_id is None

        await wait_until(is_free)


def _fail(bench: HistoryBench, *shard_ids: int) -> None:
    """What a fault in a transition does to a shard."""
    for shard_id in shard_ids:
        bench.engine.committer.fail_shard(bench.engine.shards[shard_id].owner)


async def test_host_that_misses_a_shard_is_ready_for_a_moment_only(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        async with _locked(migrated_postgres_dsn, "shards"):
            _fail(bench, 0)
            assert bench.host.membership.is_ready
            monkeypatch.setattr(readiness, "_MISSING_GRACE", 0.1)
            await wait_until(lambda: bench.host.membership.waits_for == "its shards")
        await wait_until(lambda: bench.host.membership.is_ready)


async def test_host_that_misses_many_of_its_shards_is_not_ready(
    migrated_postgres_dsn: str,
) -> None:
    async with _bench(migrated_postgres_dsn) as bench:
        _fail(bench, 0, 1)
        assert bench.host.membership.waits_for == "its shards"
        await wait_until(lambda: bench.host.membership.is_ready)
