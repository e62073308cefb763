"""A migrated database for each test, copied from one that was migrated once."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from aetheris_server.config import PostgresSettings
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.migrate import migrate
from tests.support.databases import create_database, database_name, drop_database
from tests.support.stores import SessionStores


@pytest.fixture(scope="session")
def template_name(stores: SessionStores, session_name: str) -> Iterator[str]:
    """The name of a migrated database that nothing connects to."""

    name = database_name(session_name, "storage_template")
    asyncio.run(migrate(create_database(stores.postgres_dsn, name)))
    yield name
    drop_database(stores.postgres_dsn, name)


@pytest.fixture
def migrated_dsn(stores: SessionStores, session_name: str, template_name: str) -> Iterator[str]:
    name = database_name(session_name, secrets.token_hex(4))
    yield create_database(stores.postgres_dsn, name, template=template_name)
    drop_database(stores.postgres_dsn, name)


@pytest.fixture
async def db(migrated_dsn: str) -> AsyncIterator[Database]:
    async with Database(PostgresSettings(dsn=migrated_dsn, pool_max_size=4)) as database:
        yield database


@pytest.fixture
async def writer(db: Database) -> AsyncIterator[LogWriter]:
    writer = LogWriter(db)
    yield writer
    await writer.close()
