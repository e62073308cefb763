"""The Postgres and Redis that a test session runs against.

In order: what AETHERIS_TEST_POSTGRES and AETHERIS_TEST_REDIS name; containers, where
AETHERIS_TEST_CONTAINERS=1; else embedded servers. Embedded servers live in numbered folders that
outlast the session, each used by one session at a time: so a session seldom pays for `initdb`, two
sessions at once get one each, and a killed session leaves nothing that the next does not take over.
"""

import importlib
import os
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aetheris_server.embedded.errors import DataDirInUseError
from aetheris_server.embedded.stores import EmbeddedStores

# Tests of durability start servers of their own.
_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
}
_MAX_SESSIONS = 32


@dataclass(frozen=True, slots=True)
class SessionStores:
    """Where the stores are, and whether they are this session's alone."""

    postgres_dsn: str
    redis_url: str
    are_ours: bool


@contextmanager
def session_stores() -> Generator[SessionStores]:
    """The stores of this session, until the block is left."""
    postgres_dsn = os.environ.get("AETHERIS_TEST_POSTGRES")
    redis_url = os.environ.get("AETHERIS_TEST_REDIS")
    if postgres_dsn and redis_url:
        yield SessionStores(postgres_dsn, redis_url, are_ours=False)
        return
    with ExitStack() as stack:
        if os.environ.get("AETHERIS_TEST_CONTAINERS") == "1":
            ours = _start_containers(stack)
        else:
            embedded = _start_embedded(stack)
            ours = SessionStores(embedded.postgres_dsn, embedded.redis_url, are_ours=True)
        yield SessionStores(
            postgres_dsn or ours.postgres_dsn,
            redis_url or ours.redis_url,
            are_ours=not (postgres_dsn or redis_url),
        )


def _start_embedded(stack: ExitStack) -> EmbeddedStores:
    home = Path(tempfile.gettempdir()) / f"aetheris-tests-{os.geteuid()}"
    # Postgres runs as another account where this one is root, and passes through here.
    home.mkdir(mode=0o711, exist_ok=True)
    for number in range(_MAX_SESSIONS):
        try:
            return stack.enter_context(EmbeddedStores(home / str(number), _FAST))
        except DataDirInUseError:
            continue
    raise AssertionError(f"all {_MAX_SESSIONS} folders under {home} are in use")


def _start_containers(stack: ExitStack) -> SessionStores:
    # Imported by name: the package is optional and absent on most machines.
    postgres_module: Any = importlib.import_module("testcontainers.postgres")
    redis_module: Any = importlib.import_module("testcontainers.redis")
    postgres = stack.enter_context(postgres_module.PostgresContainer("postgres:18", driver=None))
    redis = stack.enter_context(redis_module.RedisContainer("redis:8"))
    address = f"{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}"
    return SessionStores(postgres.get_connection_url(), f"redis://{address}/0", are_ours=True)
