"""The kinds of a process, by name."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aetheris_server.errors import UnknownRecordError
from aetheris_server.history.aggregates.index import SharedIndex
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.kind import Kind
from aetheris_server.storage.row_changes import RowStatement


class Kinds:
    """Some kinds."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.use(kinds)

    def use(self, kinds: Iterable[Kind]) -> None:
        """Know these kinds and no others. A server never does so; tests may.

        Raises:
            ValueError: Two of them have the same name.
        """
        by_name: dict[str, Kind] = {}
        for kind in kinds:
            if kind.name in by_name:
                raise ValueError(f"two kinds are named {kind.name}")
            by_name[kind.name] = kind
        self._by_name: Mapping[str, Kind] = by_name

    def all(self) -> tuple[Kind, ...]:
        """All of them."""
        return tuple(self._by_name.values())

    def statements(self) -> Sequence[RowStatement[Any]]:
        """What writes the rows of all of them; those of the shared table come last."""
        own = (s for kind in self._by_name.values() for s in kind.index.statements)
        shared = SharedIndex().statements
        return [*(s for s in own if s not in shared), *shared]

    def of(self, key: AggregateKey) -> Kind:
        """The kind that a key names.

        Raises:
            UnknownRecordError: This program does not know it.
        """
        kind = self._by_name.get(key.kind)
        if kind is None:
            raise UnknownRecordError(key.id, 1, f"the kind {key.kind!r}")
        return kind

    def has_own_rows(self, key: AggregateKey) -> bool:
        """Whether a key's row is in a table that its kind has to itself."""
        kind = self._by_name.get(key.kind)
        return kind is not None and not isinstance(kind.index, SharedIndex)

    def key(self, kind_name: str, namespace_id: str, name: str, id_: str) -> AggregateKey:
        """The key that a row stands for, in the form of its kind where that is known."""
        kind = self._by_name.get(kind_name)
        if kind is None or kind.make_key is None:
            return AggregateKey(namespace_id, name, id_, kind_name)
        return kind.make_key(namespace_id, name, id_)
