"""A server that answers as the test says, and a client of it."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from aetheris_client import Client, Connection
from aetheris_client.connection import Backoff
from tests.support.canned_server import CannedServer


@pytest.fixture
async def server() -> AsyncIterator[CannedServer]:
    async with CannedServer() as server:
        yield server


@pytest.fixture
async def client(server: CannedServer) -> AsyncIterator[Client]:
    connection = Connection(server.address, backoff=Backoff(initial=0.01, maximum=0.02))
    async with Client(
        connection, "shop", identity="tester", rpc_timeout=timedelta(seconds=5)
    ) as client:
        yield client
