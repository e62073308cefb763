"""The hosts of the cluster and their leases: who is alive, until when by the database's clock.

A host's lease is its row here, and covers all of its shards, so that renewing it is one row however
many they are. Where the lease has run out, another host may bury it: delete the row and free the
shards, in one transaction. So a host whose row is still there has lost nothing, even if its lease
had run out; one whose row is gone has lost every shard.
"""

import asyncio
import struct
from dataclasses import dataclass, field
from datetime import datetime
from typing import LiteralString

from aetheris_server.storage.database import Database, storage_errors
from aetheris_server.storage.pipeline import PipelineConnection


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host that is alive. `address` is where the others reach it."""

    host_id: str
    address: str
    heartbeat_time: datetime
    expire_time: datetime


@dataclass(frozen=True, slots=True)
class Sight:
    """The cluster at one look.

    Attributes:
        hosts: Address by host id, of all that have a row.
        expired: Those of them whose lease has run out.
        version: Differs from that of another look exactly if a shard has changed hands between.
        settings_version: Grows with each change of the cluster's settings; of no concern where two
            looks are compared.
    """

    hosts: dict[str, str]
    expired: frozenset[str]
    version: tuple[int, int]
    settings_version: int = field(default=0, compare=False)


_REGISTER = """
INSERT INTO hosts AS h (host_id, address, heartbeat_time, expire_time)
SELECT %(host_id)s, %(address)s, now(), now() + %(lease)s * interval '1 second'
WHERE NOT EXISTS (
    SELECT FROM hosts o
    WHERE o.address = %(address)s AND o.host_id <> %(host_id)s AND o.expire_time > now()
)
ON CONFLICT (host_id) DO UPDATE SET address = excluded.address,
    heartbeat_time = excluded.heartbeat_time, expire_time = excluded.expire_time
RETURNING host_id
"""

_REPLACE = """
WITH gone AS (DELETE FROM hosts WHERE address = %s AND host_id <> %s RETURNING host_id)
UPDATE shards s SET host_id = NULL FROM gone WHERE s.host_id = gone.host_id
"""

_BURY = """
WITH gone AS (
    DELETE FROM hosts
    WHERE host_id <> %s AND expire_time <= now() - %s * interval '1 second' RETURNING host_id
), freed AS (
    UPDATE shards s SET host_id = NULL FROM gone WHERE s.host_id = gone.host_id
)
SELECT host_id FROM gone
"""

# A range_id only grows, and a shard that is given up is one less that is owned until it is taken.
_LOOK = """
SELECT h.host_id, h.address, h.expire_time <= now(), v.taken, v.owned,
    coalesce((SELECT settings_version FROM cluster), 0)
FROM (
    SELECT coalesce(sum(range_id), 0)::bigint AS taken, count(host_id) AS owned FROM shards
) AS v LEFT JOIN hosts h ON true
"""

_LOAD_LIVE = """
SELECT host_id, address, heartbeat_time, expire_time FROM hosts
WHERE expire_time > now() ORDER BY host_id
"""

_RENEW = b"1"

_STATEMENTS: dict[bytes, LiteralString] = {
    _RENEW: """
UPDATE hosts SET heartbeat_time = now(), expire_time = now() + $2::float8 * interval '1 second'
WHERE host_id = $1::text RETURNING 1""",
}


class LeaseRenewer:
    """Renews the lease of one host over a connection of its own, which nothing else can hold up."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connection: PipelineConnection | None = None

    async def renew(self, host_id: str, lease_timeout: float, timeout: float) -> bool:
        """Prolong a lease, also one that has run out; one call at a time.

        Args:
            host_id: Whose.
            lease_timeout: Seconds from now on.
            timeout: Seconds that this may take, to connect included.

        Returns:
            Whether it is still there; else the host was buried.

        Raises:
            StorageUnavailableError: No answer in that time; it may have been renewed.
        """
        with storage_errors():
            async with asyncio.timeout(timeout):
                if self._connection is None or self._connection.is_closed:
                    self._connection = await self._db.connect_pipeline(_STATEMENTS)
                parameters = [host_id.encode(), struct.pack(">d", lease_timeout)]
                (result,) = await self._connection.run([(_RENEW, parameters)])
        return result.ntuples > 0

    def close(self) -> None:
        """Close the connection; no call is under way. Again is harmless."""
        if self._connection is not None:
            self._connection.close()


async def register_host(db: Database, host_id: str, address: str, lease_timeout: float) -> bool:
    """Give a host a lease.

    Returns:
        False where another host that is alive has the address; nothing was written.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    parameters = {"host_id": host_id, "address": address, "lease": lease_timeout}
    return bool(await db.fetch(_REGISTER, parameters))


async def replace_host(db: Database, host_id: str, address: str) -> None:
    """Bury whoever was at an address before, whether its lease has run out or not.

    Only for a host that is reached at the address: no two processes are.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    await db.fetch(_REPLACE, (address, host_id))


async def bury_hosts(db: Database, host_id: str, expired_for: float) -> list[str]:
    """Bury the other hosts whose leases ran out that many seconds ago or earlier; their ids.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return [row[0] for row in await db.fetch(_BURY, (host_id, expired_for))]


async def look_at_cluster(db: Database) -> Sight:
    """The hosts, and whether shards have changed hands since another look. A few small rows.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    rows = await db.fetch(_LOOK)
    hosts = [row for row in rows if row[0] is not None]
    return Sight(
        hosts={host_id: address for host_id, address, *_ in hosts},
        expired=frozenset(host_id for host_id, _, is_expired, *_ in hosts if is_expired),
        version=(rows[0][3], rows[0][4]),
        settings_version=rows[0][5],
    )


async def load_live_hosts(db: Database) -> list[HostRow]:
    """The hosts that are alive, by id.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    return [HostRow(*row) for row in await db.fetch(_LOAD_LIVE)]


async def remove_host(db: Database, host_id: str) -> None:
    """Forget a host. Again is harmless.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    await db.fetch("DELETE FROM hosts WHERE host_id = %s", (host_id,))
