from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aetheris_server.config import PostgresSettings
from aetheris_server.storage.aggregate_rows import AGGREGATE_STATEMENTS
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import EXECUTION_STATEMENTS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The rows here are made by hand."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.damage)


@pytest.fixture
async def db(migrated_postgres_dsn: str) -> AsyncIterator[Database]:
    settings = PostgresSettings(dsn=migrated_postgres_dsn, pool_max_size=4)
    async with Database(settings) as database:
        yield database


@pytest.fixture
async def writer(db: Database) -> AsyncIterator[LogWriter]:
    writer = LogWriter(db, [*EXECUTION_STATEMENTS, *AGGREGATE_STATEMENTS])
    yield writer
    await writer.close()
