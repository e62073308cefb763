"""Namespaces: their names, and for how long closed runs are kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aetheris_server.errors import NamespaceAlreadyExistsError
from aetheris_server.storage.database import Database


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace. `namespace_id` is a UUID and never changes."""

    namespace_id: str
    name: str
    description: str
    retention_seconds: int
    create_time: datetime
    request_id: str


_LOAD = """
SELECT namespace_id::text, name, description, retention_seconds, create_time, request_id
FROM namespaces WHERE name = %s
"""

_FIND = "SELECT name, namespace_id::text FROM namespaces WHERE name = ANY(%s)"

_LIST = """
SELECT namespace_id::text, name, description, retention_seconds, create_time, request_id
FROM namespaces WHERE name > %s ORDER BY name LIMIT %s
"""

_CREATE = """
INSERT INTO namespaces (namespace_id, name, description, retention_seconds, request_id)
VALUES (%s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING
"""


async def create_namespace(
    db: Database,
    namespace_id: str,
    name: str,
    description: str,
    retention_seconds: int,
    request_id: str,
) -> Namespace:
    """Make a namespace; a repeated request_id returns the one that it made, with that one's id.

    Raises:
        NamespaceAlreadyExistsError: Another request made one of that name.
        StorageUnavailableError: Postgres does not answer.
    """
    await db.fetch(_CREATE, (namespace_id, name, description, retention_seconds, request_id))
    namespace = await load_namespace(db, name)
    if namespace is None or namespace.request_id != request_id:
        raise NamespaceAlreadyExistsError(name)
    return namespace


async def load_namespace(db: Database, name: str) -> Namespace | None:
    """The namespace of a name.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_LOAD, (name,))
    return Namespace(*rows[0]) if rows else None


async def find_namespace_ids(db: Database, names: Sequence[str]) -> dict[str, str]:
    """The ids of those of some namespaces that there are, by name.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    storable = [name for name in names if "\0" not in name]
    return dict(await db.fetch(_FIND, (storable,)))


async def load_namespace_name(db: Database, namespace_id: str) -> str:
    """The name of the namespace of an id; empty if there is none.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch("SELECT name FROM namespaces WHERE namespace_id = %s", (namespace_id,))
    return rows[0][0] if rows else ""


async def list_namespaces(db: Database, page_size: int, after_name: str = "") -> list[Namespace]:
    """A page of namespaces, by name, behind `after_name`.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_LIST, (after_name, page_size))
    return [Namespace(*row) for row in rows]
