import asyncio
from collections.abc import Collection
from datetime import timedelta

import pytest

from aetheris_server.config import ConfigError, PostgresSettings
from aetheris_server.errors import ShardLostError
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.finding import load_due, load_owing
from aetheris_server.storage.hosts import bury_hosts, register_host
from aetheris_server.storage.shards import (
    AcquiredShard,
    ShardSettlement,
    WakeRewrite,
    acquire_shards,
    ensure_cluster,
    load_shard_count,
    load_shards,
    release_shards,
    settle_shards,
)
from tests.integration.storage.rows import (
    START_TIME,
    aggregate_row,
    batch_of,
    close_update,
    execution_row,
    log_row,
)

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
async def _cluster(db: Database) -> None:
    await ensure_cluster(db, 4)


def make_note(shard_id: int, range_id: int) -> tuple[bytes, bytes]:
    return b"note %d %d" % (shard_id, range_id), b"hash %d %d" % (shard_id, range_id)


async def acquire(db: Database, host_id: str, shard_ids: Collection[int]) -> list[AcquiredShard]:
    await register_host(db, host_id, f"{host_id}:1", 60.0)
    return await acquire_shards(db, host_id, shard_ids, make_note)


async def bury(db: Database, host_id: str) -> None:
    """As another host does when the lease has run out."""
    await register_host(db, host_id, f"{host_id}:1", -1.0)
    assert await bury_hosts(db, "gravedigger", 0.0) == [host_id]


async def owners(db: Database) -> list[str | None]:
    return [shard.host_id for shard in await load_shards(db)]


async def test_ensure_cluster_again_returns_the_same_count(db: Database) -> None:
    assert await ensure_cluster(db, 4) == 4
    assert await load_shard_count(db) == 4
    assert [shard.shard_id for shard in await load_shards(db)] == [0, 1, 2, 3]


async def test_ensure_cluster_other_count_names_both(db: Database) -> None:
    with pytest.raises(ConfigError, match=r"history\.shard_count: expected 4,.* found 8"):
        await ensure_cluster(db, 8)


async def test_ensure_cluster_by_two_hosts_at_once_creates_one(migrated_postgres_dsn: str) -> None:
    async with Database(PostgresSettings(dsn=migrated_postgres_dsn)) as db:
        assert await asyncio.gather(*(ensure_cluster(db, 4) for _ in range(4))) == [4] * 4
        assert len(await load_shards(db)) == 4


async def test_acquire_unowned_shards_appends_a_note_to_each_log(
    db: Database, writer: LogWriter
) -> None:
    await writer.commit(batch_of(log=[log_row(2, 1), log_row(2, 2)]))

    assert await acquire(db, "a", [2, 0]) == [
        AcquiredShard(shard_id=0, range_id=1, next_shard_seq=2, watermark=0),
        AcquiredShard(shard_id=2, range_id=1, next_shard_seq=4, watermark=0),
    ]
    assert await owners(db) == ["a", None, "a", None]
    notes = await db.fetch(
        "SELECT shard_id, shard_seq, record, hash, namespace_id, run_id"
        " FROM log WHERE run_id IS NULL ORDER BY shard_id"
    )
    assert notes == [
        (0, 1, b"note 0 1", b"hash 0 1", None, None),
        (2, 3, b"note 2 1", b"hash 2 1", None, None),
    ]


async def test_acquire_owned_shard_leaves_it_to_its_owner(db: Database) -> None:
    await acquire(db, "a", [0])

    assert [shard.shard_id for shard in await acquire(db, "b", [0, 1])] == [1]
    assert await owners(db) == ["a", "b", None, None]


async def test_acquire_shard_of_a_buried_host_takes_it(db: Database) -> None:
    await acquire(db, "a", [0])
    await bury(db, "a")
    assert await owners(db) == [None] * 4

    assert [shard.range_id for shard in await acquire(db, "b", [0])] == [2]


async def test_acquire_shard_of_a_host_without_a_row_takes_it(db: Database) -> None:
    # Such a host was buried while it took the shard.
    await acquire_shards(db, "a", [0], make_note)

    assert [shard.range_id for shard in await acquire(db, "b", [0])] == [2]


async def test_acquire_own_shard_takes_it_anew(db: Database) -> None:
    await acquire(db, "a", [0])

    assert await acquire(db, "a", [0]) == [AcquiredShard(0, 2, 3, 0)]


async def test_acquire_nothing_or_unknown_shards_takes_none(db: Database) -> None:
    assert await acquire(db, "a", []) == []
    assert await acquire(db, "a", [99]) == []


async def test_acquire_by_two_hosts_at_once_gives_each_shard_to_one(db: Database) -> None:
    taken = await asyncio.gather(*(acquire(db, host, range(4)) for host in ("a", "b", "c")))

    assert sorted(shard.shard_id for shards in taken for shard in shards) == [0, 1, 2, 3]


async def test_commit_by_the_owner_before_is_refused(db: Database, writer: LogWriter) -> None:
    (shard,) = await acquire(db, "a", [0])
    await bury(db, "a")
    await writer.commit(batch_of(log=[log_row(0, shard.next_shard_seq)]))
    await acquire(db, "b", [0])

    with pytest.raises(ShardLostError) as caught:
        await writer.commit(batch_of(log=[log_row(0, shard.next_shard_seq + 1)]))

    assert caught.value.shard_ids == {0}


async def test_acquire_under_a_writing_owner_ends_its_writing(
    db: Database, writer: LogWriter
) -> None:
    (shard,) = await acquire(db, "a", [0])
    await bury(db, "a")
    written = 0

    async def write() -> None:
        nonlocal written
        while True:
            seq = shard.next_shard_seq + written
            await writer.commit(batch_of(log=[log_row(0, seq)]))
            written += 1

    writing = asyncio.create_task(write())
    (taken,) = await acquire(db, "b", [0])

    with pytest.raises(ShardLostError):
        await writing
    assert taken.next_shard_seq == shard.next_shard_seq + written + 1


async def test_settle_moves_watermarks_forward_only(db: Database) -> None:
    await acquire(db, "a", [0, 1])
    await settle_shards(db, "a", [ShardSettlement(1, 1, watermark=9)])

    ours = await settle_shards(
        db, "a", [ShardSettlement(1, 1, watermark=7), ShardSettlement(0, 1, watermark=5)]
    )

    shards = await load_shards(db)
    assert ours == {0, 1}
    assert [shard.watermark for shard in shards] == [5, 9, 0, 0]
    assert [shard.watermark for shard in await acquire(db, "a", [0])] == [5]


async def test_settle_of_a_lost_shard_changes_nothing_of_it(
    db: Database, writer: LogWriter
) -> None:
    await acquire(db, "a", [0, 1])
    await release_shards(db, "a", [(1, 1)])
    await acquire(db, "b", [1])
    runs = [execution_row(shard_id=shard_id) for shard_id in (0, 1)]
    await writer.commit(batch_of(inserts=runs))

    ours = await settle_shards(
        db,
        "a",
        [ShardSettlement(run.shard_id, 1, 9, owes_set=[run.run_id]) for run in runs],
    )

    assert ours == {0}
    assert [shard.watermark for shard in await load_shards(db)] == [9, 0, 0, 0]
    assert [owing[0] for owing in await load_owing(db, [0, 1])] == [0]


async def test_settle_with_an_old_range_is_not_ours(db: Database) -> None:
    await acquire(db, "a", [0])
    await acquire(db, "a", [0])

    assert await settle_shards(db, "a", [ShardSettlement(0, 1, 3)]) == set()
    assert await settle_shards(db, "a", [ShardSettlement(0, 2, 3)]) == {0}
    assert await settle_shards(db, "a", []) == set()


async def test_settle_sets_and_clears_owing_runs(db: Database, writer: LogWriter) -> None:
    await acquire(db, "a", [0])
    set_run, cleared_run = execution_row(0), execution_row(0, owes=True)
    await writer.commit(batch_of(inserts=[set_run, cleared_run]))

    settlement = ShardSettlement(
        0, 1, 1, owes_set=[set_run.run_id], owes_cleared=[cleared_run.run_id]
    )
    for _ in range(2):
        await settle_shards(db, "a", [settlement])

    assert [owing[4] for owing in await load_owing(db, [0])] == [set_run.run_id]


async def test_settle_that_was_planned_before_a_run_closed_leaves_its_flag(
    db: Database, writer: LogWriter
) -> None:
    await acquire(db, "a", [0])
    done, owing = execution_row(0), execution_row(0)
    await writer.commit(batch_of(inserts=[done, owing]))
    await writer.commit(batch_of(updates=[close_update(done), close_update(owing, owes=True)]))

    planned = ShardSettlement(0, 1, 1, owes_set=[done.run_id], owes_cleared=[owing.run_id])
    await settle_shards(db, "a", [planned])

    assert [found[4] for found in await load_owing(db, [0])] == [owing.run_id]


async def test_settle_changes_the_rows_of_runs_and_of_other_aggregates(
    db: Database, writer: LogWriter
) -> None:
    await acquire(db, "a", [0])
    run = execution_row(0, wake_time=START_TIME)
    flagged, cleared, woken, closed = (
        aggregate_row(0, owes=owes, wake_time=wake_time, close_time=close_time)
        for owes, wake_time, close_time in (
            (False, None, None),
            (True, None, None),
            (False, START_TIME, None),
            (True, None, START_TIME),
        )
    )
    aggregates = [flagged, cleared, woken, closed]
    await writer.commit(batch_of(inserts=[run], aggregate_inserts=aggregates))

    settlement = ShardSettlement(
        0,
        1,
        1,
        owes_set=[run.run_id, flagged.id],
        owes_cleared=[cleared.id, closed.id],
        wake_rewrites=[
            WakeRewrite(run.run_id, START_TIME, None),
            WakeRewrite(woken.id, START_TIME, None),
        ],
        in_aggregates={row.id for row in aggregates},
    )
    await settle_shards(db, "a", [settlement])

    owing = {found[4] for found in await load_owing(db, [0])}
    assert owing == {run.run_id, flagged.id, closed.id}
    assert await load_due(db, [0], START_TIME + timedelta(minutes=1), 10) == []


async def test_settle_rewrites_a_wake_time_only_if_it_is_still_the_old_one(
    db: Database, writer: LogWriter
) -> None:
    await acquire(db, "a", [0])
    later, latest = (START_TIME + timedelta(minutes=count) for count in (1, 2))
    gone, moved, changed, marked = (execution_row(0, wake_time=START_TIME) for _ in range(4))
    await writer.commit(
        batch_of(
            inserts=[gone, moved, changed, marked],
            updates=[close_update(changed, wake_time=later)],
        )
    )

    settlement = ShardSettlement(
        0,
        1,
        1,
        owes_set=[marked.run_id],
        wake_rewrites=[
            WakeRewrite(gone.run_id, START_TIME, None),
            WakeRewrite(moved.run_id, START_TIME, latest),
            WakeRewrite(changed.run_id, START_TIME, None),
            WakeRewrite(marked.run_id, START_TIME, None),
        ],
    )
    await settle_shards(db, "a", [settlement])

    due = await load_due(db, [0], latest + timedelta(minutes=1), 10)
    assert [(found[4], time) for found, time in due] == [
        (changed.run_id, later),
        (moved.run_id, latest),
    ]
    assert [owing[4] for owing in await load_owing(db, [0])] == [marked.run_id]


async def test_settle_beside_commits_of_the_same_runs_gets_through(
    db: Database, writer: LogWriter
) -> None:
    await acquire(db, "a", [0])
    runs = [execution_row(0) for _ in range(50)]
    await writer.commit(batch_of(inserts=runs))
    ids = [run.run_id for run in runs]

    async def settle() -> None:
        for turn in range(20):
            is_odd = turn % 2
            settlement = ShardSettlement(
                0, 1, 1, ids if is_odd else (), () if is_odd else ids[::-1]
            )
            await settle_shards(db, "a", [settlement])

    async def update() -> None:
        for _ in range(20):
            updates = [close_update(run, owes=True) for run in reversed(runs)]
            await writer.commit(batch_of(updates=updates))

    await asyncio.gather(settle(), update())

    assert writer.retry_count == 0


async def test_release_frees_only_what_is_still_ours(db: Database) -> None:
    await acquire(db, "a", [0, 1])
    await release_shards(db, "a", [(1, 1)])
    await acquire(db, "b", [1])

    await release_shards(db, "a", [(1, 1), (0, 1)])

    assert await owners(db) == [None, "b", None, None]
    assert [shard.range_id for shard in await acquire(db, "b", [0])] == [2]
