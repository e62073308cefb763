"""Rows of aggregates that are no runs, and what finds those together with runs."""

from datetime import timedelta

import pytest

from aetheris_server.ids import new_run_id
from aetheris_server.storage.aggregate_rows import AggregateUpdate
from aetheris_server.storage.aggregates import load_aggregates, weigh_aggregates
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.finding import load_due, load_open_since, load_owing
from aetheris_server.storage.shards import acquire_shards, ensure_cluster
from aetheris_server.storage.snapshots import SnapshotRow
from tests.integration.storage.rows import (
    NAMESPACE_ID,
    START_TIME,
    aggregate_row,
    batch_of,
    close_update,
    execution_row,
    log_row,
)

pytestmark = pytest.mark.integration

LATER = START_TIME + timedelta(minutes=5)


async def test_row_comes_back_as_it_was_written_last(db: Database, writer: LogWriter) -> None:
    kept, changed = aggregate_row(wake_time=START_TIME), aggregate_row(name="x")
    update = AggregateUpdate(1, changed.id, None, LATER, owes=True)
    await writer.commit(batch_of(aggregate_inserts=[kept, changed], aggregate_updates=[update]))

    ids = [(1, kept.id), (1, changed.id), (2, kept.id), (1, "not-an-id")]
    by_id = {row.id: row for row in await load_aggregates(db, ids)}

    assert by_id[kept.id] == kept
    assert by_id[changed.id] == aggregate_row(name="x", id_=changed.id, close_time=LATER, owes=True)
    assert len(by_id) == 2


async def test_weight_is_that_of_the_snapshot_and_of_what_is_behind_it(
    db: Database, writer: LogWriter
) -> None:
    row = aggregate_row()
    log = [log_row(1, seq, row.id, seq, record=b"x" * 10) for seq in (1, 2, 3)]
    snapshot = SnapshotRow(1, row.id, 2, b"hash", b"y" * 7)
    await writer.commit(batch_of(log=log, aggregate_inserts=[row], snapshots=[snapshot]))

    assert await weigh_aggregates(db, [(1, row.id), (1, new_run_id())]) == [(1, row.id, 17)]


async def test_load_due_returns_the_earliest_of_runs_and_others_in_pages(
    db: Database, writer: LogWriter
) -> None:
    times = [START_TIME + timedelta(minutes=count) for count in range(4)]
    runs = [execution_row(shard_id=1, wake_time=time) for time in (times[1], times[3], LATER)]
    others = [aggregate_row(shard_id=2, wake_time=time) for time in (times[0], times[2], LATER)]
    elsewhere = [aggregate_row(shard_id=3, wake_time=times[0]), aggregate_row(shard_id=1)]
    await writer.commit(batch_of(inserts=runs, aggregate_inserts=[*others, *elsewhere]))

    due = await load_due(db, [1, 2], LATER, 10)

    assert due == [
        ((2, "kind", NAMESPACE_ID, "name", others[0].id), times[0]),
        ((1, "run", NAMESPACE_ID, runs[0].workflow_id, runs[0].run_id), times[1]),
        ((2, "kind", NAMESPACE_ID, "name", others[1].id), times[2]),
        ((1, "run", NAMESPACE_ID, runs[1].workflow_id, runs[1].run_id), times[3]),
    ]
    assert await load_due(db, [1, 2], LATER, 2) == due[:2]
    (*_, last_id), last_time = due[1]
    assert await load_due(db, [1, 2], LATER, 9, (last_time, last_id)) == due[2:]


async def test_load_owing_returns_what_is_flagged_in_these_shards(
    db: Database, writer: LogWriter
) -> None:
    run, other = execution_row(owes=True), aggregate_row(owes=True)
    await writer.commit(
        batch_of(
            inserts=[run, execution_row(), execution_row(shard_id=2, owes=True)],
            aggregate_inserts=[other, aggregate_row(), aggregate_row(shard_id=2, owes=True)],
        )
    )

    assert sorted(await load_owing(db, [1])) == [
        (1, "kind", NAMESPACE_ID, other.name, other.id),
        (1, "run", NAMESPACE_ID, run.workflow_id, run.run_id),
    ]


async def test_load_open_since_names_each_open_one_behind_the_watermark_once(
    db: Database, writer: LogWriter
) -> None:
    await ensure_cluster(db, 4)
    await acquire_shards(db, "host", [1, 2], lambda *_: (b"note", b"hash"))
    before, twice, closed = (execution_row(1) for _ in range(3))
    other, closed_other = aggregate_row(2), aggregate_row(2, close_time=LATER)
    elsewhere = aggregate_row(3)
    await writer.commit(
        batch_of(
            log=[
                log_row(1, 2, before.run_id),
                log_row(1, 3, twice.run_id, run_seq=1),
                log_row(1, 4, twice.run_id, run_seq=2),
                log_row(1, 5, closed.run_id),
                log_row(2, 2, other.id),
                log_row(2, 3, closed_other.id),
                log_row(3, 1, elsewhere.id),
            ],
            inserts=[before, twice, closed],
            updates=[close_update(closed)],
            aggregate_inserts=[other, closed_other, elsewhere],
        )
    )

    assert sorted(await load_open_since(db, {1: 2, 2: 0})) == [
        (1, "run", NAMESPACE_ID, twice.workflow_id, twice.run_id),
        (2, "kind", NAMESPACE_ID, other.name, other.id),
    ]
    assert await load_open_since(db, {}) == []
