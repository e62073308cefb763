"""Namespaces and hosts: what servers look up by name."""

import pytest

from aetheris_server.errors import NamespaceAlreadyExistsError
from aetheris_server.ids import new_run_id
from aetheris_server.storage.database import Database
from aetheris_server.storage.hosts import heartbeat_host, load_live_hosts, remove_host, replace_host
from aetheris_server.storage.namespaces import (
    Namespace,
    create_namespace,
    list_namespaces,
    load_namespace,
)
from aetheris_server.storage.shards import acquire_shards, ensure_cluster, load_shards

pytestmark = pytest.mark.integration


async def create(db: Database, name: str, request_id: str = "request") -> Namespace:
    return await create_namespace(db, new_run_id(), name, "what for", 86_400, request_id)


async def test_create_namespace_can_be_loaded(db: Database) -> None:
    created = await create(db, "default")

    assert await load_namespace(db, "default") == created
    assert (created.description, created.retention_seconds) == ("what for", 86_400)
    assert await load_namespace(db, "Default") is None


async def test_create_namespace_again_by_the_same_request_returns_the_first(db: Database) -> None:
    assert await create(db, "default") == await create(db, "default")


async def test_create_namespace_of_a_taken_name_is_refused(db: Database) -> None:
    await create(db, "default")

    with pytest.raises(NamespaceAlreadyExistsError):
        await create(db, "default", request_id="another")


async def test_list_namespaces_pages_by_name(db: Database) -> None:
    for name in ("c", "a", "b"):
        await create(db, name)

    first = await list_namespaces(db, 2)
    second = await list_namespaces(db, 2, first[-1].name)

    assert [namespace.name for namespace in first + second] == ["a", "b", "c"]


async def test_heartbeat_keeps_a_host_alive_until_it_expires(db: Database) -> None:
    await heartbeat_host(db, "a", "old:1", 60.0)
    await heartbeat_host(db, "a", "new:1", 60.0)
    await heartbeat_host(db, "dead", "dead:1", -1.0)

    assert [(host.host_id, host.address) for host in await load_live_hosts(db)] == [("a", "new:1")]


async def test_replace_host_frees_the_shards_of_who_was_at_the_address(db: Database) -> None:
    await ensure_cluster(db, 3)
    for host_id, address, shard_id in (("old", "h:1", 0), ("new", "h:1", 1), ("other", "h:2", 2)):
        await heartbeat_host(db, host_id, address, 60.0)
        await acquire_shards(db, host_id, [shard_id], 60.0, lambda *_: (b"note", b"hash"))

    await replace_host(db, "new", "h:1")

    assert [host.host_id for host in await load_live_hosts(db)] == ["new", "other"]
    assert [shard.host_id for shard in await load_shards(db)] == [None, "new", "other"]


async def test_remove_host_forgets_it_and_the_long_dead(db: Database) -> None:
    for host_id, expire in (("a", 60.0), ("b", 60.0), ("dead", -7200.0)):
        await heartbeat_host(db, host_id, "host:1", expire)

    await remove_host(db, "a")
    await remove_host(db, "a")

    assert await db.fetch("SELECT host_id FROM hosts") == [("b",)]
