"""What the frontend reads without asking history: namespaces, lists of runs, the cluster."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import ExecutionRow
from aetheris_server.storage.executions import ExecutionFilter, list_executions
from aetheris_server.storage.hosts import HostRow, load_live_hosts
from aetheris_server.storage.namespaces import (
    Namespace,
    create_namespace,
    list_namespaces,
    load_namespace,
    update_namespace,
)
from aetheris_server.storage.shards import load_shards

__all__ = ["Catalog", "ClusterOverview", "PostgresCatalog"]


@dataclass(frozen=True, slots=True)
class ClusterOverview:
    """The hosts that are alive, by id, and how many of the shards each has."""

    hosts: Sequence[HostRow]
    shard_count: int
    owned_by_host: dict[str, int]


class Catalog(Protocol):
    """Every method raises StorageUnavailableError where the store does not answer."""

    async def load_namespace(self, name: str) -> Namespace | None:
        """The namespace of a name."""
        ...

    async def create_namespace(
        self,
        namespace_id: str,
        name: str,
        description: str,
        retention_seconds: int,
        request_id: str,
        limits: Mapping[str, int],
    ) -> Namespace:
        """Make a namespace; a repeated request_id returns the one that it made.

        Raises:
            NamespaceAlreadyExistsError: Another request made one of that name.
        """
        ...

    async def update_namespace(
        self,
        name: str,
        description: str | None,
        retention_seconds: int | None,
        limits: Mapping[str, int],
        unset_limits: Collection[str],
    ) -> Namespace | None:
        """Change what is given; None if there is none of the name."""
        ...

    async def list_namespaces(self, page_size: int, after_name: str) -> list[Namespace]:
        """A page of namespaces, by name, behind `after_name`."""
        ...

    async def list_executions(
        self,
        namespace_id: str,
        wanted: ExecutionFilter,
        page_size: int,
        after: tuple[datetime, str] | None,
    ) -> list[ExecutionRow]:
        """A page of runs, newest start first, behind (start_time, run_id)."""
        ...

    async def load_cluster(self) -> ClusterOverview:
        """The cluster as its tables show it now."""
        ...


class PostgresCatalog:
    """The catalog of one database."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def load_namespace(self, name: str) -> Namespace | None:
        return await load_namespace(self._db, name)

    async def create_namespace(
        self,
        namespace_id: str,
        name: str,
        description: str,
        retention_seconds: int,
        request_id: str,
        limits: Mapping[str, int],
    ) -> Namespace:
        return await create_namespace(
            self._db, namespace_id, name, description, retention_seconds, request_id, limits
        )

    async def update_namespace(
        self,
        name: str,
        description: str | None,
        retention_seconds: int | None,
        limits: Mapping[str, int],
        unset_limits: Collection[str],
    ) -> Namespace | None:
        return await update_namespace(
            self._db, name, description, retention_seconds, limits, unset_limits
        )

    async def list_namespaces(self, page_size: int, after_name: str) -> list[Namespace]:
        return await list_namespaces(self._db, page_size, after_name)

    async def list_executions(
        self,
        namespace_id: str,
        wanted: ExecutionFilter,
        page_size: int,
        after: tuple[datetime, str] | None,
    ) -> list[ExecutionRow]:
        return await list_executions(self._db, namespace_id, wanted, page_size, after)

    async def load_cluster(self) -> ClusterOverview:
        hosts = await load_live_hosts(self._db)
        shards = await load_shards(self._db)
        owned = dict.fromkeys((host.host_id for host in hosts), 0)
        for shard in shards:
            if shard.host_id in owned:
                owned[shard.host_id] += 1
        return ClusterOverview(hosts, len(shards), owned)
