"""One server for all tests of a module, each with a task queue of its own."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Generator
from pathlib import Path

import pytest

from tests.support.databases import create_database, database_name, drop_database
from tests.support.processes import FAST, ServerProcess, start_arguments
from tests.support.projection_audit import audit_projections
from tests.support.raw import Raw
from tests.support.stores import SessionStores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder starts processes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def e2e_postgres_dsn(
    stores: SessionStores, session_name: str, migrated_template: str
) -> Generator[str]:
    """The database of the shared server."""
    name = database_name(session_name, "e2e")
    dsn = create_database(stores.postgres_dsn, name, migrated_template)
    yield dsn
    audit_projections(dsn)
    drop_database(stores.postgres_dsn, name)


@pytest.fixture(scope="session")
def shared_server(
    stores: SessionStores,
    e2e_postgres_dsn: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[ServerProcess]:
    """A server that no test harms."""
    server = ServerProcess(
        tmp_path_factory.mktemp("e2e"),
        start_arguments(e2e_postgres_dsn, stores.redis_url),
        {**FAST, "AETHERIS_REDIS__KEY_PREFIX": f"e2e-{secrets.token_hex(4)}"},
    )
    asyncio.run(server.start())
    yield server
    assert asyncio.run(server.terminate()) == 0, server.output


@pytest.fixture
async def server(shared_server: ServerProcess) -> AsyncGenerator[Raw]:
    """A connection to the shared server, with a task queue of this test's own."""
    async with Raw(shared_server.address, queue=f"queue-{secrets.token_hex(4)}") as connection:
        yield connection
