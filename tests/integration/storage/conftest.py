from collections.abc import AsyncIterator

import pytest

from aetheris_server.config import PostgresSettings
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database


@pytest.fixture
async def db(migrated_postgres_dsn: str) -> AsyncIterator[Database]:
    settings = PostgresSettings(dsn=migrated_postgres_dsn, pool_max_size=4)
    async with Database(settings) as database:
        yield database


@pytest.fixture
async def writer(db: Database) -> AsyncIterator[LogWriter]:
    writer = LogWriter(db)
    yield writer
    await writer.close()
