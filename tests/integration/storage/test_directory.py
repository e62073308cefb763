"""Namespaces: what servers look up by name."""

import pytest

from aetheris_server.errors import NamespaceAlreadyExistsError
from aetheris_server.ids import new_run_id
from aetheris_server.storage.database import Database
from aetheris_server.storage.namespaces import (
    Namespace,
    create_namespace,
    list_namespaces,
    load_namespace,
)

pytestmark = pytest.mark.integration


async def create(db: Database, name: str, request_id: str = "request") -> Namespace:
    return await create_namespace(db, new_run_id(), name, "what for", 86_400, request_id, {})


async def test_create_namespace_can_be_loaded(db: Database) -> None:
    created = await create(db, "default")

    assert await load_namespace(db, "default") == created
    assert (created.description, created.retention_seconds) == ("what for", 86_400)
    assert await load_namespace(db, "Default") is None


async def test_create_namespace_again_by_the_same_request_returns_the_first(db: Database) -> None:
    assert await create(db, "default") == await create(db, "default")


async def test_create_namespace_of_a_taken_name_is_refused(db: Database) -> None:
    await create(db, "default")

    with pytest.raises(NamespaceAlreadyExistsError):
        await create(db, "default", request_id="another")


async def test_list_namespaces_pages_by_name(db: Database) -> None:
    for name in ("c", "a", "b"):
        await create(db, name)

    first = await list_namespaces(db, 2)
    second = await list_namespaces(db, 2, first[-1].name)

    assert [namespace.name for namespace in first + second] == ["a", "b", "c"]
