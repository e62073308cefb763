"""What a database must have before anything is served from it: checked, and made where it may be.

Safe to repeat, and for hosts that start at once.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from aetheris_server.config import PostgresSettings
from aetheris_server.errors import NamespaceAlreadyExistsError
from aetheris_server.storage.database import Database
from aetheris_server.storage.migrate import check_schema
from aetheris_server.storage.namespaces import create_namespace
from aetheris_server.storage.requirements import check_database
from aetheris_server.storage.secrets import ensure_secrets
from aetheris_server.storage.shards import ensure_cluster

DEFAULT_NAMESPACE = "default"
_DEFAULT_RETENTION_SECONDS = 72 * 3600


@dataclass(frozen=True, slots=True)
class Prepared:
    """What hosts must know of the cluster that a database has.

    Attributes:
        shard_count: Fixed when the cluster was made.
        secrets: By key id; at least one.
    """

    shard_count: int
    secrets: Mapping[int, bytes]


async def prepare(db: Database, settings: PostgresSettings, shard_count: int) -> Prepared:
    """Check the database, and make what a cluster begins with: its row, shards, secret, and the
    default namespace.

    Args:
        db: Connected.
        settings: With which it was.
        shard_count: Of the cluster, if there is none yet.

    Raises:
        ConfigError: The database cannot be ours, its schema is old, or its cluster has another
            number of shards.
        UnavailableError: Postgres does not answer.
    """
    await check_database(settings)
    await check_schema(db)
    shard_count = await ensure_cluster(db, shard_count)
    secrets = await ensure_secrets(db)
    await _ensure_default_namespace(db)
    return Prepared(shard_count, secrets)


async def _ensure_default_namespace(db: Database) -> None:
    try:
        await create_namespace(
            db,
            str(uuid.uuid4()),
            DEFAULT_NAMESPACE,
            "made at the first start",
            _DEFAULT_RETENTION_SECONDS,
            request_id=DEFAULT_NAMESPACE,
            limits={},
        )
    except NamespaceAlreadyExistsError:
        # An operator made it first.
        return
