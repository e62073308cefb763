"""Namespaces: their names, for how long closed runs are kept, and their limits."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from aetheris_server.errors import NamespaceAlreadyExistsError
from aetheris_server.storage.database import Database


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace.

    Attributes:
        namespace_id: A UUID; never changes.
        limits: Those that it has of its own, by name.
    """

    namespace_id: str
    name: str
    description: str
    retention_seconds: int
    create_time: datetime
    request_id: str
    limits: Mapping[str, int]


_LOAD = """
SELECT namespace_id::text, name, description, retention_seconds, create_time, request_id, limits
FROM namespaces WHERE name = %s
"""

_FIND = "SELECT name, namespace_id::text FROM namespaces WHERE name = ANY(%s)"

_LIST = """
SELECT namespace_id::text, name, description, retention_seconds, create_time, request_id, limits
FROM namespaces WHERE name > %s ORDER BY name LIMIT %s
"""

_CREATE = """
INSERT INTO namespaces (namespace_id, name, description, retention_seconds, request_id, limits)
VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (name) DO NOTHING
"""

_UPDATE = """
UPDATE namespaces SET
    description = coalesce(%s, description),
    retention_seconds = coalesce(%s, retention_seconds),
    limits = (limits || %s) - %s::text[]
WHERE name = %s
RETURNING namespace_id::text, name, description, retention_seconds, create_time, request_id, limits
"""

_LOAD_LIMITS = "SELECT namespace_id::text, limits FROM namespaces WHERE limits <> '{}'"


async def create_namespace(
    db: Database,
    namespace_id: str,
    name: str,
    description: str,
    retention_seconds: int,
    request_id: str,
    limits: Mapping[str, int],
) -> Namespace:
    """Make a namespace; a repeated request_id returns the one that it made, with that one's id.

    Raises:
        NamespaceAlreadyExistsError: Another request made one of that name.
        StorageUnavailableError: Postgres does not answer.
    """
    values = (namespace_id, name, description, retention_seconds, request_id, Jsonb(dict(limits)))
    await db.fetch(_CREATE, values)
    namespace = await load_namespace(db, name)
    if namespace is None or namespace.request_id != request_id:
        raise NamespaceAlreadyExistsError(name)
    return namespace


async def update_namespace(
    db: Database,
    name: str,
    description: str | None,
    retention_seconds: int | None,
    limits: Mapping[str, int],
    unset_limits: Collection[str],
) -> Namespace | None:
    """Change what is given, and take away the limits in `unset_limits`; None if there is no such
    namespace.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    values = (description, retention_seconds, Jsonb(dict(limits)), list(unset_limits), name)
    rows = await db.fetch(_UPDATE, values)
    return Namespace(*rows[0]) if rows else None


async def load_namespace_limits(db: Database) -> dict[str, Mapping[str, int]]:
    """The limits of all namespaces that have some of their own, by namespace id.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return {row[0]: row[1] for row in await db.fetch(_LOAD_LIMITS)}


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
