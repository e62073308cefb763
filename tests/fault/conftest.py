"""What the fault tests share: a database and keys per test, and servers on them."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import FAST, ServerProcess, start_arguments


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything in this folder kills something."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fault)


NewServer = Callable[..., ServerProcess]


@pytest.fixture
def new_server(migrated_postgres_dsn: str, redis_url: str, tmp_path: Path) -> NewServer:
    """Makes servers of one cluster. `environment` adds settings, the rest says where stores are."""
    environment = {**FAST, "AETHERIS_REDIS__KEY_PREFIX": f"fault-{secrets.token_hex(4)}"}

    def make(
        postgres_dsn: str = migrated_postgres_dsn, redis: str = redis_url, **settings: str
    ) -> ServerProcess:
        return ServerProcess(
            tmp_path, start_arguments(postgres_dsn, redis), {**environment, **settings}
        )

    return make
