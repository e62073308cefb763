import asyncio

import pytest

from aetheris_server.config import PostgresSettings
from aetheris_server.storage.database import Database
from aetheris_server.storage.secrets import ensure_secrets

pytestmark = pytest.mark.integration


async def test_hosts_that_start_at_once_get_the_same_secret(migrated_postgres_dsn: str) -> None:
    async with Database(PostgresSettings(dsn=migrated_postgres_dsn, pool_max_size=8)) as db:
        found = await asyncio.gather(*(ensure_secrets(db) for _ in range(8)))
    assert all(secrets == found[0] for secrets in found)
    assert list(found[0]) == [1]
    assert len(found[0][1]) == 32


async def test_secret_outlives_the_hosts_and_one_that_is_added_is_loaded(db: Database) -> None:
    first = await ensure_secrets(db)
    await db.fetch("INSERT INTO cluster_secrets (key_id, secret) VALUES (2, %s)", (bytes(32),))
    assert await ensure_secrets(db) == {**first, 2: bytes(32)}
    await db.fetch("DELETE FROM cluster_secrets WHERE key_id = 1")
    assert await ensure_secrets(db) == {2: bytes(32)}


async def test_secrets_of_two_clusters_differ(db: Database, postgres_dsn: str) -> None:
    from aetheris_server.storage.migrate import migrate

    await migrate(postgres_dsn)
    async with Database(PostgresSettings(dsn=postgres_dsn)) as other:
        assert await ensure_secrets(other) != await ensure_secrets(db)
