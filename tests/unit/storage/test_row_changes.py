"""Rows beside the log: who is written, in which order, and what they weigh."""

from collections.abc import Sequence

from aetheris_server.storage.row_changes import RowChanges, RowStatement

Pair = tuple[str, int]


def _bind(rows: Sequence[Pair]) -> list[bytes]:
    return [repr(list(rows)).encode()]


INSERT = RowStatement("INSERT", bind=_bind)
UPDATE = RowStatement("UPDATE", bind=_bind, key=lambda row: row[0])


def test_rows_of_a_statement_keep_their_order_and_others_have_none() -> None:
    changes = RowChanges()
    changes.add(INSERT, ("b", 1))
    changes.add(INSERT, ("a", 2), ("b", 3))
    assert changes.of(INSERT) == [("b", 1), ("a", 2), ("b", 3)]
    assert not changes.of(UPDATE)
    assert [*changes.statements] == [INSERT]
    assert len(changes) == 3


def test_rows_of_another_come_behind_and_stay_its_own() -> None:
    changes, other = RowChanges(), RowChanges()
    changes.add(INSERT, ("a", 1))
    other.add(INSERT, ("b", 2))
    other.add(UPDATE, ("a", 3))
    changes.extend(other)
    changes.add(UPDATE, ("a", 4))
    assert changes.of(INSERT) == [("a", 1), ("b", 2)]
    assert changes.of(UPDATE) == [("a", 3), ("a", 4)]
    assert other.of(UPDATE) == [("a", 3)]


def test_rows_with_a_key_are_bound_in_its_order_and_only_the_last_of_each() -> None:
    rows = [("b", 1), ("a", 2), ("b", 3)]
    assert UPDATE.columns_of(rows) == _bind([("a", 2), ("b", 3)])
    assert INSERT.columns_of(rows) == _bind(rows)
