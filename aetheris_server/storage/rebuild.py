"""A table that follows from the log, made again beside the live one and held against it.

    log ──fold──► rows ──their own statements──► table of the session ──compare, replace──► live

The session's table has the live one's name and stands before it, so that what fills it is, to the
letter, what the write path runs.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import LiteralString

from psycopg import sql

from aetheris_server.storage.index_table import IndexTable
from aetheris_server.storage.row_changes import RowChanges
from aetheris_server.storage.session import Session

# Of a value that is shown.
_MAX_TEXT = 200

_SCHEMA = """
SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.oid = %s::regclass
"""

_COLUMNS = """
SELECT attname FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

_KEY = """
SELECT a.attname FROM pg_index i
CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY k.place
"""

_STAND_BEFORE = """
SELECT set_config('search_path', 'pg_temp, ' || current_setting('search_path'), false)
"""

_HOLD = """
SELECT FROM shards WHERE shard_id = %s AND range_id = %s AND host_id = %s FOR UPDATE
"""

_AHEAD = "SELECT l.run_id::text FROM {made} r JOIN {live} l ON {same_key} WHERE {is_ahead}"

_LIVE = """
SELECT DISTINCT run_id::text FROM {live}
WHERE shard_id = %(shard_id)s AND run_id = ANY (%(run_ids)s::uuid[])
"""

_COMPARE = """
SELECT coalesce(l.run_id, r.run_id)::text, ARRAY[{key}],
    CASE WHEN l.run_id IS NOT NULL THEN to_jsonb(l) END,
    CASE WHEN r.run_id IS NOT NULL THEN to_jsonb(r) END,
    array_remove(ARRAY[{wrong}], NULL)
FROM (SELECT * FROM {made} WHERE run_id = ANY (%(run_ids)s::uuid[])) AS r
FULL JOIN (
    SELECT * FROM {live} WHERE shard_id = %(shard_id)s AND run_id = ANY (%(run_ids)s::uuid[])
) AS l ON {same_key}
WHERE l.run_id IS NULL OR r.run_id IS NULL OR NOT ({in_step})
ORDER BY 2
"""

_REMOVE = """
DELETE FROM {live} l
WHERE l.shard_id = %(shard_id)s AND l.run_id = ANY (%(run_ids)s::uuid[])
    AND NOT EXISTS (SELECT FROM {made} r WHERE {same_key})
"""

_PUT = """
INSERT INTO {live} AS l ({columns})
SELECT {columns} FROM {made}
WHERE shard_id = %(shard_id)s AND run_id = ANY (%(run_ids)s::uuid[])
ON CONFLICT ({key}) DO UPDATE SET {assigned} WHERE ({old}) IS DISTINCT FROM ({new})
"""

_NEXT_RUNS = """
SELECT l.run_id::text, EXISTS (
    SELECT FROM log g WHERE g.shard_id = %(shard_id)s AND g.run_id = l.run_id AND g.run_seq = 1
)
FROM (
    SELECT DISTINCT run_id FROM {live}
    WHERE shard_id = %(shard_id)s AND run_id > %(after)s::uuid ORDER BY run_id LIMIT %(limit)s
) AS l ORDER BY l.run_id
"""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what the log says.

    Attributes:
        key: Of the row, as text: the columns of the primary key.
        found: The live row's columns that are at fault; None where there is no such row.
        expected: The same columns as they should be; None where there should be no such row.
    """

    run_id: str
    key: tuple[str, ...]
    found: dict[str, object] | None
    expected: dict[str, object] | None

    @property
    def text(self) -> str:
        """What is wrong, for people."""
        if self.found is None:
            return f"row {self.key}: expected one, found none"
        if self.expected is None:
            return f"row {self.key}: expected none, found one"
        return "; ".join(
            f"{column}: expected {_shorten(value)}, found {_shorten(self.found[column])}"
            for column, value in self.expected.items()
        )


class MadeTable:
    """A table of the session's own, empty at first, and the live one. Within the session's
    transactions.
    """

    def __init__(
        self, session: Session, table: IndexTable, schema: str, key: list[str], columns: list[str]
    ) -> None:
        self._session = session
        self._table = table
        names = {
            "live": sql.Identifier(schema, table.name),
            "made": sql.Identifier("pg_temp", table.name),
        }
        same_key = _each(key, "l.{c} = r.{c}", " AND ")
        self._clear = sql.SQL("TRUNCATE {made}").format(**names)
        self._complete = sql.SQL(table.complete).format(**names) if table.complete else None
        self._ahead = sql.SQL(_AHEAD).format(
            **names, same_key=same_key, is_ahead=sql.SQL(table.ahead or "false")
        )
        self._live = sql.SQL(_LIVE).format(**names)
        self._compare = sql.SQL(_COMPARE).format(
            **names,
            same_key=same_key,
            key=_each(key, "coalesce(l.{c}, r.{c})::text", ", "),
            wrong=sql.SQL(", ").join(
                sql.SQL("CASE WHEN {} THEN NULL ELSE {} END").format(
                    _in_step(table, column), sql.Literal(column)
                )
                for column in columns
            ),
            in_step=sql.SQL(" AND ").join(_in_step(table, column) for column in columns),
        )
        self._remove = sql.SQL(_REMOVE).format(**names, same_key=same_key)
        self._put = sql.SQL(_PUT).format(
            **names,
            columns=_each(columns, "{c}", ", "),
            key=_each(key, "{c}", ", "),
            assigned=_each(columns, "{c} = excluded.{c}", ", "),
            old=_each(columns, "l.{c}", ", "),
            new=_each(columns, "excluded.{c}", ", "),
        )
        self._next_runs = sql.SQL(_NEXT_RUNS).format(**names)

    async def hold(self, shard_id: int, range_id: int, host_id: str) -> bool:
        """Whether a host still has a shard, which then nobody takes before the transaction ends.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        return bool(await self._session.fetch(_HOLD, (shard_id, range_id, host_id)))

    async def write(self, changes: RowChanges) -> None:
        """Write rows into the table of the session, as the write path writes the live one.

        Raises:
            StorageUnavailableError: Postgres does not answer.
            UnstorableError: It refuses a value.
        """
        for statement in self._table.statements:
            rows = changes.of(statement)
            if rows:
                await self._session.write(statement, rows)

    async def complete(self) -> None:
        """Fill in what follows from other rows, once all rows of some runs are written.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        if self._complete is not None:
            await self._session.change(self._complete)

    async def find_ahead(self) -> list[str]:
        """The runs whose live rows tell of records that the log does not have.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        return [row[0] for row in await self._session.fetch(self._ahead)]

    async def find_live(self, shard_id: int, run_ids: Sequence[str]) -> list[str]:
        """Which of some runs have live rows.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        parameters = {"shard_id": shard_id, "run_ids": list(run_ids)}
        return [row[0] for row in await self._session.fetch(self._live, parameters)]

    async def compare(self, shard_id: int, run_ids: Sequence[str]) -> list[Difference]:
        """The rows of runs that are not what was made again, in the order of their keys.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        parameters = {"shard_id": shard_id, "run_ids": list(run_ids)}
        rows = await self._session.fetch(self._compare, parameters)
        return [
            Difference(run_id, tuple(key), _only(found, wrong), _only(expected, wrong))
            for run_id, key, found, expected, wrong in rows
        ]

    async def replace(self, shard_id: int, run_ids: Sequence[str]) -> int:
        """Make the live rows of runs what was made again; the number of rows that changed.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        parameters = {"shard_id": shard_id, "run_ids": list(run_ids)}
        count = await self._session.change(self._remove, parameters)
        return count + await self._session.change(self._put, parameters)

    async def clear(self) -> None:
        """Empty the table of the session.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        await self._session.change(self._clear)

    async def load_runs_after(
        self, shard_id: int, run_id: str, limit: int
    ) -> list[tuple[str, bool]]:
        """The next runs of a shard that have live rows, behind `run_id`, and whether the log has
        their first record.

        Raises:
            StorageUnavailableError: Postgres does not answer.
        """
        parameters = {"shard_id": shard_id, "after": run_id, "limit": limit}
        rows = await self._session.fetch(self._next_runs, parameters)
        return [(row[0], row[1]) for row in rows]


@asynccontextmanager
async def made_table(session: Session, table: IndexTable) -> AsyncGenerator[MadeTable]:
    """A table of the session's own, for as long as the session lasts.

    Raises:
        StorageUnavailableError: Postgres does not answer, or refuses the session a table.
    """
    name = [table.name]
    ((schema,),) = await session.fetch(_SCHEMA, name)
    columns = [row[0] for row in await session.fetch(_COLUMNS, name)]
    key = [row[0] for row in await session.fetch(_KEY, name)]
    await session.change(
        sql.SQL("CREATE TEMPORARY TABLE {} (LIKE {} INCLUDING ALL)").format(
            sql.Identifier(table.name), sql.Identifier(schema, table.name)
        )
    )
    # Without this the session's own path decides, which may name the live table first.
    await session.fetch(_STAND_BEFORE)
    yield MadeTable(session, table, schema, key, columns)


def _in_step(table: IndexTable, column: str) -> sql.Composed:
    """The condition under which a column is as it should be."""
    name = sql.Identifier(column)
    is_equal = sql.SQL("l.{0} IS NOT DISTINCT FROM r.{0}").format(name)
    lag = table.lags.get(column)
    if lag is None:
        return is_equal
    return sql.SQL("({} OR coalesce({}, false))").format(is_equal, sql.SQL(lag))


def _each(names: Sequence[str], text: LiteralString, separator: LiteralString) -> sql.Composed:
    """A text for each name, which stands in it as `{c}`."""
    template = sql.SQL(text)
    return sql.SQL(separator).join([template.format(c=sql.Identifier(name)) for name in names])


def _shorten(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _only(row: dict[str, object] | None, columns: Sequence[str]) -> dict[str, object] | None:
    return {column: row[column] for column in columns} if row is not None else None
