"""The hosts that are alive, so that they can share the shards out and find each other.

A host is alive until its `expire_time`, by the database's clock.
"""

from dataclasses import dataclass
from datetime import datetime

from aetheris_server.storage.database import Database


@dataclass(frozen=True, slots=True)
class Host:
    """A host that is alive. `address` is where the others reach it."""

    host_id: str
    address: str
    heartbeat_time: datetime
    expire_time: datetime


_HEARTBEAT = """
INSERT INTO hosts AS h (host_id, address, heartbeat_time, expire_time)
VALUES (%s, %s, now(), now() + %s * interval '1 second')
ON CONFLICT (host_id) DO UPDATE SET address = excluded.address,
    heartbeat_time = excluded.heartbeat_time, expire_time = excluded.expire_time
"""

_REPLACE = """
WITH gone AS (DELETE FROM hosts WHERE address = %s AND host_id <> %s RETURNING host_id)
UPDATE shards s SET host_id = NULL, lease_expire_time = NULL
FROM gone WHERE s.host_id = gone.host_id
"""

_LOAD_LIVE = """
SELECT host_id, address, heartbeat_time, expire_time FROM hosts
WHERE expire_time > now() ORDER BY host_id
"""


async def heartbeat_host(db: Database, host_id: str, address: str, expire: float) -> None:
    """Say that a host is alive for `expire` more seconds; the first time registers it.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    await db.fetch(_HEARTBEAT, (host_id, address, expire))


async def replace_host(db: Database, host_id: str, address: str) -> None:
    """Declare dead whoever was at an address before; its shards are free at once.

    Only for a host that listens at the address: no two processes can.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    await db.fetch(_REPLACE, (address, host_id))


async def load_live_hosts(db: Database) -> list[Host]:
    """The hosts that are alive, by id.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return [Host(*row) for row in await db.fetch(_LOAD_LIVE)]


async def remove_host(db: Database, host_id: str) -> None:
    """Forget a host, and those that died an hour ago or earlier. Again is harmless.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    await db.fetch(
        "DELETE FROM hosts WHERE host_id = %s OR expire_time < now() - interval '1 hour'",
        (host_id,),
    )
