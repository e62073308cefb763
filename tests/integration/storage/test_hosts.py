"""Hosts and their leases."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from aetheris_server.config import PostgresSettings
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.storage.database import Database
from aetheris_server.storage.hosts import (
    LeaseRenewer,
    bury_hosts,
    load_live_hosts,
    look_at_cluster,
    register_host,
    remove_host,
    replace_host,
)
from aetheris_server.storage.shards import (
    acquire_shards,
    ensure_cluster,
    load_shards,
    release_shards,
)
from tests.support.cutting_proxy import postgres_proxy

pytestmark = pytest.mark.integration


@pytest.fixture
async def renewer(db: Database) -> AsyncGenerator[LeaseRenewer]:
    renewer = LeaseRenewer(db)
    yield renewer
    renewer.close()


async def _live(db: Database) -> list[tuple[str, str]]:
    return [(host.host_id, host.address) for host in await load_live_hosts(db)]


async def _owners(db: Database) -> list[str | None]:
    return [shard.host_id for shard in await load_shards(db)]


async def _with_shards(db: Database, *hosts: tuple[str, str, float]) -> None:
    await ensure_cluster(db, len(hosts))
    for shard_id, (host_id, address, lease) in enumerate(hosts):
        await register_host(db, host_id, address, lease)
        await acquire_shards(db, host_id, [shard_id], lambda *_: (b"note", b"hash"))


async def test_register_host_is_alive_until_its_lease_runs_out(db: Database) -> None:
    assert await register_host(db, "a", "old:1", 60.0)
    assert await register_host(db, "a", "new:1", 60.0)
    assert await register_host(db, "dead", "dead:1", -1.0)

    assert await _live(db) == [("a", "new:1")]


async def test_register_host_at_the_address_of_a_live_one_is_refused(db: Database) -> None:
    await register_host(db, "a", "h:1", 60.0)

    assert not await register_host(db, "b", "h:1", 60.0)
    assert await _live(db) == [("a", "h:1")]


async def test_renew_prolongs_a_lease_even_one_that_has_run_out(
    db: Database, renewer: LeaseRenewer
) -> None:
    await register_host(db, "a", "a:1", -5.0)

    assert await renewer.renew("a", 60.0, timeout=5.0)
    assert await _live(db) == [("a", "a:1")]


async def test_renew_of_a_buried_host_says_so(db: Database, renewer: LeaseRenewer) -> None:
    await register_host(db, "a", "a:1", -5.0)
    await bury_hosts(db, "b", 0.0)

    assert not await renewer.renew("a", 60.0, timeout=5.0)
    assert await _live(db) == []


async def test_renew_without_an_answer_ends_in_its_time_and_goes_on(
    migrated_postgres_dsn: str, db: Database
) -> None:
    async with (
        postgres_proxy(migrated_postgres_dsn) as (proxy, dsn),
        Database(PostgresSettings(dsn=dsn)) as through,
    ):
        renewer = LeaseRenewer(through)
        await register_host(db, "a", "a:1", 60.0)
        assert await renewer.renew("a", 60.0, timeout=5.0)
        proxy.is_holding = True
        begin = asyncio.get_running_loop().time()
        with pytest.raises(StorageUnavailableError):
            await renewer.renew("a", 60.0, timeout=0.2)
        assert asyncio.get_running_loop().time() - begin < 1.0
        proxy.is_holding = False
        assert await renewer.renew("a", 60.0, timeout=5.0)
        renewer.close()


async def test_replace_host_frees_the_shards_of_who_was_at_the_address(db: Database) -> None:
    await _with_shards(db, ("old", "h:1", -1.0), ("new", "h:1", 60.0), ("other", "h:2", 60.0))

    await replace_host(db, "new", "h:1")

    assert [host_id for host_id, _ in await _live(db)] == ["new", "other"]
    assert await _owners(db) == [None, "new", "other"]


async def test_bury_hosts_frees_the_shards_of_the_expired_but_never_its_own(db: Database) -> None:
    await _with_shards(db, ("me", "h:1", -9.0), ("dead", "h:2", -9.0), ("live", "h:3", 60.0))

    assert await bury_hosts(db, "me", expired_for=60.0) == []
    assert await bury_hosts(db, "me", expired_for=1.0) == ["dead"]
    assert await bury_hosts(db, "me", expired_for=1.0) == []
    assert await _owners(db) == ["me", None, "live"]


async def test_look_at_cluster_sees_every_change_of_hands(db: Database) -> None:
    await ensure_cluster(db, 2)
    seen = [(await look_at_cluster(db)).version]

    async def note_change() -> None:
        version = (await look_at_cluster(db)).version
        assert version not in seen
        assert (await look_at_cluster(db)).version == version
        seen.append(version)

    await register_host(db, "a", "a:1", 60.0)
    await acquire_shards(db, "a", [0, 1], lambda *_: (b"note", b"hash"))
    await note_change()
    await release_shards(db, "a", [(0, 1)])
    await note_change()
    await acquire_shards(db, "b", [0], lambda *_: (b"note", b"hash"))
    await note_change()
    await replace_host(db, "c", "a:1")
    await note_change()


async def test_look_at_cluster_names_the_hosts_and_who_has_expired(db: Database) -> None:
    assert (await look_at_cluster(db)).hosts == {}
    await register_host(db, "a", "a:1", 60.0)
    await register_host(db, "b", "b:1", -1.0)

    sight = await look_at_cluster(db)

    assert sight.hosts == {"a": "a:1", "b": "b:1"}
    assert sight.expired == {"b"}


async def test_remove_host_forgets_it_alone(db: Database) -> None:
    for host_id in ("a", "b"):
        await register_host(db, host_id, f"{host_id}:1", 60.0)

    await remove_host(db, "a")
    await remove_host(db, "a")

    assert await _live(db) == [("b", "b:1")]
