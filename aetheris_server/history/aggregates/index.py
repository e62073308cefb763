"""How an aggregate is found without its log: by one row, which is always in step with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.storage.aggregate_rows import AGGREGATE_STATEMENTS
from aetheris_server.storage.aggregates import load_aggregates, weigh_aggregates
from aetheris_server.storage.database import Database
from aetheris_server.storage.row_changes import RowStatement


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What a row says.

    Attributes:
        wake_time: The first deadline that must survive a crash; None for none.
        event_count: Events that the log has at least.
    """

    shard_id: int
    key: AggregateKey
    wake_time: datetime | None
    is_open: bool
    event_count: int = 0


class Index(Protocol):
    """Where a kind's rows are. Aggregates are given by shard and id, and come in no order; those
    there are not are left out.

    Attributes:
        statements: That write the rows, in the order in which a batch runs them.
    """

    @property
    def statements(self) -> Sequence[RowStatement[Any]]: ...

    async def load(self, db: Database, ids: Sequence[tuple[int, str]]) -> list[IndexEntry]:
        """What the rows say.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        ...

    async def weigh(
        self, db: Database, ids: Sequence[tuple[int, str]]
    ) -> list[tuple[int, str, int]]:
        """What loading them takes in bytes, behind shard and id.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        ...


class SharedIndex:
    """The one that kinds share which have none of their own."""

    statements: Sequence[RowStatement[Any]] = AGGREGATE_STATEMENTS

    async def load(self, db: Database, ids: Sequence[tuple[int, str]]) -> list[IndexEntry]:
        return [
            IndexEntry(
                shard_id=row.shard_id,
                key=AggregateKey(row.namespace_id, row.name, row.id, row.kind),
                wake_time=row.wake_time,
                is_open=row.close_time is None,
            )
            for row in await load_aggregates(db, ids)
        ]

    async def weigh(
        self, db: Database, ids: Sequence[tuple[int, str]]
    ) -> list[tuple[int, str, int]]:
        return await weigh_aggregates(db, ids)
