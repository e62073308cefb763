"""The projections that there are. A new one is a file here, a migration, and a line below."""

from collections.abc import Iterable
from typing import Any

from aetheris.server.v1 import log_pb2
from aetheris_server.history.projections.errors import UnknownProjectionError
from aetheris_server.history.projections.projection import (
    AppliedRecord,
    OnProjectedEvent,
    OnProjectedFact,
    Projection,
)
from aetheris_server.history.state.registry import fact_name
from aetheris_server.history.state.run import RunState
from aetheris_server.storage.execution_rows import EXECUTIONS
from aetheris_server.storage.row_changes import RowChanges, RowStatement


class Projections:
    """Some projections, and who of them takes what, made once."""

    def __init__(self, projections: Iterable[Projection]) -> None:
        self.use(projections)

    def use(self, projections: Iterable[Projection]) -> None:
        """Write these projections and no others. A server never does so; tests may.

        Raises:
            ValueError: Two of them have the same name.
        """
        by_name: dict[str, Projection] = {}
        events: dict[int, list[OnProjectedEvent]] = {}
        facts: dict[str, list[OnProjectedFact]] = {}
        for projection in projections:
            if by_name.setdefault(projection.name, projection) is not projection:
                raise ValueError(f"two projections are named {projection.name}")
            for event_type, on_event in projection.events.items():
                events.setdefault(event_type, []).append(on_event)
            for name, on_fact in projection.facts.items():
                facts.setdefault(name, []).append(on_fact)
        self._by_name, self._events, self._facts = by_name, events, facts

    @property
    def all(self) -> tuple[Projection, ...]:
        """All of them."""
        return tuple(self._by_name.values())

    @property
    def statements(self) -> tuple[RowStatement[Any], ...]:
        """What writes them, in the order in which a transaction runs it; without those of an index,
        which the engine has already.
        """
        tables = (each.table for each in self.all if not each.is_index)
        return tuple(statement for table in tables for statement in table.statements)

    def find(self, name: str) -> Projection:
        """The one of a name.

        Raises:
            UnknownProjectionError: There is none.
        """
        projection = self._by_name.get(name)
        if projection is None:
            raise UnknownProjectionError(name, sorted(self._by_name))
        return projection

    def project(
        self, shard_id: int, state: RunState, record: log_pb2.LogRecord, rows: RowChanges
    ) -> None:
        """Add the rows that a run's record, already applied, brings.

        Those of an index are the engine's to add.
        """
        if self._events:
            for event in record.events:
                for on_event in self._events.get(event.event_type, ()):
                    on_event(AppliedRecord(shard_id, state, record), event, rows)
        if self._facts:
            for fact in record.facts:
                for on_fact in self._facts.get(fact_name(fact) or "", ()):
                    on_fact(AppliedRecord(shard_id, state, record), fact, rows)


PROJECTIONS = Projections((Projection(name="executions", table=EXECUTIONS, is_index=True),))
"""Those of this program."""
