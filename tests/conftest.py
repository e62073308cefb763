"""Fixtures that every kind of test may use."""

import asyncio
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import pytest
import redis

from tests.support.clock import ManualClock
from tests.support.databases import (
    MakeDatabase,
    create_database,
    create_encoded_database,
    database_name,
    drop_database,
    drop_leftovers,
)
from tests.support.stores import SessionStores, session_stores

# Read by gRPC when it first opens a channel. Its handlers for forks, which a child under another
# account runs into, break some of the children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


@pytest.fixture(scope="session")
def stores() -> Iterator[SessionStores]:
    """The servers of this session. Tests take `postgres_dsn` and `redis_url` instead."""
    with session_stores() as running:
        if running.are_ours:
            drop_leftovers(running.postgres_dsn)
        yield running


@pytest.fixture(scope="session")
def session_name() -> str:
    """Keeps this session's databases and keys apart from another's on the same servers."""
    return secrets.token_hex(4)


@pytest.fixture
def open_tmp_path() -> Iterator[Path]:
    """A folder that every account can pass through, as `tmp_path` is not."""
    with tempfile.TemporaryDirectory(prefix="aetheris-test-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o711)
        yield folder


@pytest.fixture(scope="module")
def module_postgres_dsn(
    stores: SessionStores, session_name: str, request: pytest.FixtureRequest
) -> Iterator[str]:
    """An empty database for this module's tests to share."""
    yield from _database(stores, database_name(session_name, request.node.name))


@pytest.fixture
def postgres_dsn(stores: SessionStores, session_name: str) -> Iterator[str]:
    """An empty database for this test alone."""
    yield from _database(stores, database_name(session_name, secrets.token_hex(4)))


@pytest.fixture
def make_database(stores: SessionStores, session_name: str) -> Iterator[MakeDatabase]:
    """Makes databases with an encoding of the test's choice."""
    made: list[str] = []

    def make(encoding: LiteralString) -> str:
        name = database_name(session_name, f"{encoding}_{secrets.token_hex(4)}")
        made.append(name)
        return create_encoded_database(stores.postgres_dsn, name, encoding)

    yield make
    for name in made:
        drop_database(stores.postgres_dsn, name)


@pytest.fixture(scope="session")
def migrated_template(stores: SessionStores, session_name: str) -> Iterator[str]:
    """The name of a database with the server's tables, to be copied and never connected to."""
    # Here, so that tests which need no store do not load it.
    from aetheris_server.storage.migrate import migrate

    name = database_name(session_name, "template")
    asyncio.run(migrate(create_database(stores.postgres_dsn, name)))
    yield name
    drop_database(stores.postgres_dsn, name)


@pytest.fixture
def migrated_postgres_dsn(
    stores: SessionStores,
    session_name: str,
    migrated_template: str,
    request: pytest.FixtureRequest,
) -> Iterator[str]:
    """A database with the server's tables and no rows, for this test alone.

    In the end its projections are what its log says, unless the test is marked `damage`.
    """
    from tests.support.projection_audit import audit_projections

    name = database_name(session_name, secrets.token_hex(4))
    for dsn in _database(stores, name, migrated_template):
        yield dsn
        if request.node.get_closest_marker("damage") is None:
            audit_projections(dsn)


@pytest.fixture
def other_postgres_dsn(
    stores: SessionStores, session_name: str, migrated_template: str
) -> Iterator[str]:
    """One more such database: that of another cluster."""
    name = database_name(session_name, secrets.token_hex(4))
    yield from _database(stores, name, migrated_template)


@pytest.fixture
def redis_url(stores: SessionStores) -> str:
    """A Redis. Empty if it is this session's own; keys go under `redis_key_prefix` in any case."""
    if stores.are_ours:
        with redis.Redis.from_url(stores.redis_url) as client:
            client.flushall()
    return stores.redis_url


@pytest.fixture
def redis_key_prefix(session_name: str) -> str:
    """A prefix for the Redis keys of this test alone."""
    return f"test-{session_name}-{secrets.token_hex(4)}"


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test moves."""
    return ManualClock()


def _database(stores: SessionStores, name: str, template: str = "template1") -> Iterator[str]:
    try:
        yield create_database(stores.postgres_dsn, name, template)
    finally:
        drop_database(stores.postgres_dsn, name)
