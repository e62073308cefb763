import random
from dataclasses import replace

import pytest

from aetheris_server.errors import ShardLostError, UnstorableError
from aetheris_server.ids import new_run_id
from aetheris_server.storage.commit import CommitBatch, LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import (
    EXECUTION_STATEMENTS,
    INSERT_EXECUTIONS,
    UPDATE_EXECUTIONS,
)
from aetheris_server.storage.executions import load_executions
from aetheris_server.storage.log import LogRow, RunRecord, load_run
from aetheris_server.storage.snapshots import SnapshotRow, load_snapshots
from tests.integration.storage.rows import (
    COMPLETED,
    NAMESPACE_ID,
    START_TIME,
    batch_of,
    close_update,
    execution_row,
    log_row,
)

pytestmark = pytest.mark.integration


def as_record(row: LogRow) -> RunRecord:
    return RunRecord(
        row.shard_seq, row.run_seq, row.first_event_id, row.event_count, row.record, row.hash
    )


async def test_commit_log_rows_reads_back_the_same_bytes(db: Database, writer: LogWriter) -> None:
    run_id = new_run_id()
    records = [bytes(range(256)), b"", b"x" * 100_000]
    rows = [log_row(1, n, run_id, run_seq=n, record=r) for n, r in enumerate(records, start=1)]

    await writer.commit(batch_of(log=rows))

    assert await load_run(db, 1, run_id) == [as_record(row) for row in rows]


async def test_commit_execution_reads_back_every_column(db: Database, writer: LogWriter) -> None:
    full = execution_row(
        start_time=START_TIME.replace(microsecond=123_456),
        close_time=START_TIME,
        memo=b"\x00memo",
        search_attributes=b'{"city": "\xc3\x96rebro"}',
        parent_namespace_id=NAMESPACE_ID,
        parent_workflow_id="parent é",
        parent_run_id=new_run_id(),
        wake_time=START_TIME,
        owes=True,
    )
    bare = execution_row(workflow_id="order-2")

    await writer.commit(batch_of(inserts=[full, bare]))

    for row in (full, bare):
        assert await load_executions(db, [(1, row.run_id)]) == [row]


async def test_commit_insert_and_updates_of_one_run_leaves_the_last(
    db: Database, writer: LogWriter
) -> None:
    row = execution_row()
    updates = [close_update(row, history_length=n) for n in (5, 6, 7)]

    await writer.commit(batch_of(inserts=[row], updates=updates))

    (found,) = await load_executions(db, [(1, row.run_id)])
    assert (found.status, found.history_length, found.close_time) == (
        COMPLETED,
        7,
        updates[0].close_time,
    )


async def test_commit_snapshot_older_than_the_stored_one_keeps_the_newer(
    db: Database, writer: LogWriter
) -> None:
    run_id = new_run_id()
    newer = SnapshotRow(1, run_id, 20, b"h20", b"state 20")
    await writer.commit(batch_of(snapshots=[newer]))

    await writer.commit(batch_of(snapshots=[SnapshotRow(1, run_id, 10, b"h10", b"state 10")]))

    assert await load_snapshots(db, [(1, run_id), (1, new_run_id()), (1, "nonsense")]) == [newer]


async def test_commit_batch_with_a_bad_row_writes_nothing(db: Database, writer: LogWriter) -> None:
    row = execution_row()
    await writer.commit(batch_of(inserts=[row]))
    run_id = new_run_id()

    with pytest.raises(UnstorableError):
        await writer.commit(batch_of(log=[log_row(run_id=run_id)], inserts=[row]))

    assert await load_run(db, 1, run_id) == []


async def test_commit_after_a_refused_batch_works_on_the_same_connection(
    db: Database, writer: LogWriter
) -> None:
    row = execution_row()
    await writer.commit(batch_of(inserts=[row]))
    with pytest.raises(UnstorableError):
        await writer.commit(batch_of(inserts=[row]))

    await writer.commit(batch_of(log=[log_row()]))

    assert (writer.commit_count, writer.retry_count) == (2, 0)


async def test_commit_numbers_of_another_writer_names_the_lost_shards(
    db: Database, writer: LogWriter
) -> None:
    other = LogWriter(db, EXECUTION_STATEMENTS)
    await other.commit(batch_of(log=[log_row(1, 1), log_row(3, 1)]))
    ours = log_row(2, 1)

    with pytest.raises(ShardLostError) as caught:
        await writer.commit(batch_of(log=[log_row(1, 1), ours, log_row(3, 1)]))

    assert caught.value.shard_ids == {1, 3}
    assert await load_run(db, 2, ours.run_id) == []
    await other.close()


async def test_commit_the_same_batch_again_succeeds_and_writes_nothing(
    db: Database, writer: LogWriter
) -> None:
    row = execution_row()
    batch = batch_of(log=[log_row(1, 1, row.run_id), log_row(2, 1)], inserts=[row])
    await writer.commit(batch)

    await writer.commit(batch)

    assert len(await load_run(db, 1, row.run_id)) == 1


async def test_commit_partly_written_rows_counts_them_as_lost(
    db: Database, writer: LogWriter
) -> None:
    first = log_row(1, 1)
    await writer.commit(batch_of(log=[first]))

    with pytest.raises(ShardLostError):
        await writer.commit(batch_of(log=[first, log_row(1, 2)]))


async def test_commit_record_in_a_place_that_is_taken_names_its_shard_only(
    db: Database, writer: LogWriter
) -> None:
    run_id = new_run_id()
    await writer.commit(batch_of(log=[log_row(1, 1, run_id), log_row(1, 2, run_id, run_seq=2)]))
    good = log_row(2, 1)

    with pytest.raises(ShardLostError) as caught:
        await writer.commit(batch_of(log=[good, log_row(1, 3, run_id, run_seq=2)]))

    assert caught.value.shard_ids == {1}
    assert await load_run(db, 2, good.run_id) == []
    assert len(await load_run(db, 1, run_id)) == 2


# Too long for an entry of an index, and not to be compressed.
_LONG_ID = random.Random(0).randbytes(5_000).hex()


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(batch_of(inserts=[execution_row(namespace_id="")]), id="null"),
        pytest.param(batch_of(inserts=[execution_row(status=1 << 15)]), id="out-of-range"),
        pytest.param(batch_of(inserts=[execution_row(workflow_id=_LONG_ID)]), id="index"),
        pytest.param(batch_of(inserts=[execution_row(memo="text")]), id="type"),
        pytest.param(batch_of(inserts=[execution_row(search_attributes=b'"\\u0000"')]), id="jsonb"),
    ],
)
async def test_commit_value_that_is_refused_is_not_the_fault_of_postgres(
    writer: LogWriter, bad: CommitBatch
) -> None:
    with pytest.raises(UnstorableError):
        await writer.commit(bad)

    await writer.commit(batch_of(log=[log_row()]))


async def test_commit_text_with_nul_is_refused(writer: LogWriter) -> None:
    with pytest.raises(UnstorableError):
        await writer.commit(batch_of(inserts=[replace(execution_row(), workflow_type="a\0b")]))


async def test_commit_large_batch_crosses_the_socket_buffer(
    db: Database, writer: LogWriter
) -> None:
    run_id = new_run_id()
    rows = [log_row(1, n, run_id, run_seq=n, record=b"x" * 1_000_000) for n in range(1, 17)]

    await writer.commit(batch_of(log=rows))

    assert [record.run_seq for record in await load_run(db, 1, run_id, after_run_seq=10)] == [
        *range(11, 17)
    ]


async def test_simple_workflow_writes_four_rows_one_insert_and_one_update(
    db: Database, writer: LogWriter
) -> None:
    row = execution_row()
    for seq in range(1, 5):
        await writer.commit(
            batch_of(
                log=[log_row(1, seq, row.run_id, run_seq=seq)],
                inserts=[row] if seq == 1 else [],
                updates=[close_update(row)] if seq == 4 else [],
            )
        )

    assert writer.log_row_count == 4
    assert writer.row_counts == {INSERT_EXECUTIONS: 1, UPDATE_EXECUTIONS: 1}
