"""The look-up of starts."""

from datetime import timedelta

import pytest

from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.newest import NewestRunReader
from tests.integration.storage.rows import NAMESPACE_ID, START_TIME, batch_of, execution_row

pytestmark = pytest.mark.integration


async def test_load_finds_the_newest_run_of_those_that_have_one(
    db: Database, writer: LogWriter
) -> None:
    old = execution_row(1, "order-1")
    new = execution_row(1, "order-1", start_time=START_TIME + timedelta(seconds=1))
    other = execution_row(2, "order-2")
    await writer.commit(batch_of(inserts=[old, new, other]))
    reader = NewestRunReader(db)

    found = await reader.load(
        [
            (1, NAMESPACE_ID, "order-2"),
            (1, NAMESPACE_ID, "order-1"),
            (2, NAMESPACE_ID, "order-2"),
        ]
    )

    assert {key: newest.run_id for key, newest in found.items()} == {
        (1, NAMESPACE_ID, "order-1"): new.run_id,
        (2, NAMESPACE_ID, "order-2"): other.run_id,
    }
    assert await reader.load([(3, NAMESPACE_ID, "order-1")]) == {}
    assert await reader.load([]) == {}
    await reader.close()


async def test_load_goes_on_after_its_connection_was_cut(db: Database, writer: LogWriter) -> None:
    row = execution_row(1, "order-1")
    await writer.commit(batch_of(inserts=[row]))
    reader = NewestRunReader(db)
    key = (1, NAMESPACE_ID, "order-1")
    await reader.load([key])

    await db.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )

    assert (await reader.load([key]))[key].run_id == row.run_id
    await reader.close()
