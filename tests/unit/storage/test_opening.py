"""Connecting to a Postgres that is not there."""

import socket

import pytest

from aetheris_server.config import PostgresSettings
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.storage.database import Database


async def test_open_without_a_postgres_says_how_long_it_tried_and_where_the_reason_is() -> None:
    with socket.socket() as silent:
        # Bound, so that nobody else is there, and not listening.
        silent.bind(("127.0.0.1", 0))
        dsn = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/x"
        database = Database(PostgresSettings(dsn=dsn, statement_timeout=1))
        with pytest.raises(StorageUnavailableError, match="no connection within 1 s; the log"):
            await database.open()
