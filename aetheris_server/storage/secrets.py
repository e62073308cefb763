"""The cluster's secrets: made by its first host, the same for all of them."""

import secrets

from aetheris_server.storage.database import Database

_SECRET_BYTES = 32

_LOAD = "SELECT key_id, secret FROM cluster_secrets"

_CREATE = """
INSERT INTO cluster_secrets (key_id, secret) VALUES (1, %s) ON CONFLICT (key_id) DO NOTHING
"""


async def ensure_secrets(db: Database) -> dict[int, bytes]:
    """The secrets by key id, at least one; makes the first where there are none yet.

    Hosts that start at once all get the one that was first.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_LOAD)
    if not rows:
        await db.fetch(_CREATE, (secrets.token_bytes(_SECRET_BYTES),))
        rows = await db.fetch(_LOAD)
    return {key_id: bytes(secret) for key_id, secret in rows}
