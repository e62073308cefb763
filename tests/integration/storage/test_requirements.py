from typing import LiteralString

import pytest

from aetheris_server.config import ConfigError, PostgresSettings
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.storage.requirements import check_database
from tests.support.databases import MakeDatabase
from tests.support.transaction_pooler import postgres_pooler

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
async def test_database_that_can_hold_every_text_is_taken(
    make_database: MakeDatabase, encoding: LiteralString
) -> None:
    await check_database(PostgresSettings(dsn=make_database(encoding)))


async def test_database_that_cannot_hold_every_text_is_refused(
    make_database: MakeDatabase,
) -> None:
    with pytest.raises(ConfigError, match=r"encoding UTF8, found LATIN1.*CREATE DATABASE"):
        await check_database(PostgresSettings(dsn=make_database("LATIN1")))


async def test_pooler_that_shares_connections_between_transactions_is_refused(
    postgres_dsn: str,
) -> None:
    async with postgres_pooler(postgres_dsn, is_transaction_mode=True) as dsn:
        with pytest.raises(ConfigError, match=r"stays one session.*pool_mode = session"):
            await check_database(PostgresSettings(dsn=dsn))


async def test_pooler_that_keeps_sessions_is_taken(postgres_dsn: str) -> None:
    async with postgres_pooler(postgres_dsn, is_transaction_mode=False) as dsn:
        await check_database(PostgresSettings(dsn=dsn))


async def test_database_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StorageUnavailableError):
        await check_database(PostgresSettings(dsn="postgresql://nobody@127.0.0.1:1/none"))
