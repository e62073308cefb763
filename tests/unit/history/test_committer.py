"""Group commit, with a writer that the test holds."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from aetheris_server.errors import (
    AetherisError,
    CommitFailedError,
    ShardLostError,
    ShardNotOwnedError,
    StorageUnavailableError,
    UnavailableError,
    UnstorableError,
)
from aetheris_server.history.engine import committer as committer_module
from aetheris_server.history.engine.committer import (
    MAX_QUEUED,
    MAX_QUEUED_BYTES,
    Commit,
    Committer,
)
from aetheris_server.storage.commit import CommitBatch, LogWriter
from aetheris_server.storage.execution_rows import UPDATE_EXECUTIONS, ExecutionUpdate
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.row_changes import RowChanges
from tests.support.wait import wait_until


class _Writer:
    """Writes when the test says so, or fails with what the test says."""

    def __init__(self) -> None:
        self.batches: list[CommitBatch] = []
        self.answers: asyncio.Queue[BaseException | None] = asyncio.Queue()

    async def commit(self, batch: CommitBatch) -> None:
        self.batches.append(batch)
        answer = await self.answers.get()
        if answer is not None:
            raise answer

    def written(self) -> list[list[tuple[int, int]]]:
        return [[(row.shard_id, row.shard_seq) for row in batch.log] for batch in self.batches]


class _Bench:
    """A committer, its writer, and what came of each commit, in order."""

    def __init__(self) -> None:
        self.writer = _Writer()
        self.failed: list[tuple[int, bool]] = []
        self.done: list[tuple[int, int, AetherisError | None]] = []
        self.committer = Committer(
            cast("LogWriter", self.writer),
            lambda shard_id, _, is_lost: self.failed.append((shard_id, is_lost)),
        )

    def enqueue(self, shard_id: int, seq: int, record: bytes = b"", **parts: Any) -> None:
        self.committer.enqueue(
            Commit(
                shard_id,
                rows=[LogRow(shard_id, seq, "", "", 0, 0, 0, record, b"")],
                on_done=lambda _, error: self.done.append((shard_id, seq, error)),
                **parts,
            )
        )

    def answer(self, *answers: BaseException | None) -> None:
        for answer in answers:
            self.writer.answers.put_nowait(answer)

    async def wait_batches(self, count: int) -> None:
        await wait_until(lambda: len(self.writer.batches) >= count)

    async def wait_done(self, count: int) -> None:
        await wait_until(lambda: len(self.done) >= count)


@asynccontextmanager
async def _running() -> AsyncGenerator[_Bench]:
    bench = _Bench()
    task = asyncio.create_task(bench.committer.run())
    try:
        yield bench
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_commits_that_come_during_a_write_go_together_in_the_next() -> None:
    async with _running() as bench:
        bench.enqueue(1, 1)
        await bench.wait_batches(1)
        for seq in (2, 3, 4):
            bench.enqueue(1, seq)
        bench.answer(None, None)
        await bench.wait_done(4)
    assert bench.writer.written() == [[(1, 1)], [(1, 2), (1, 3), (1, 4)]]
    assert [(seq, error) for _, seq, error in bench.done] == [(n, None) for n in (1, 2, 3, 4)]


async def test_batch_that_lost_a_shard_is_written_again_without_it() -> None:
    async with _running() as bench:
        for shard_id in (1, 2, 3):
            bench.enqueue(shard_id, 1)
        bench.answer(ShardLostError(frozenset({2})), None)
        await bench.wait_done(3)
    assert bench.writer.written() == [[(1, 1), (2, 1), (3, 1)], [(1, 1), (3, 1)]]
    assert bench.failed == [(2, True)]
    by_shard = {shard_id: error for shard_id, _, error in bench.done}
    assert isinstance(by_shard[2], ShardNotOwnedError)
    assert by_shard[1] is by_shard[3] is None


async def test_failure_fails_everything_that_is_queued_behind_it() -> None:
    async with _running() as bench:
        bench.enqueue(1, 1)
        await bench.wait_batches(1)
        bench.enqueue(1, 2)
        bench.enqueue(2, 1)
        bench.enqueue(1, 3)
        bench.answer(StorageUnavailableError("postgres", "gone"), None)
        await bench.wait_done(4)
    assert bench.writer.written() == [[(1, 1)], [(2, 1)]]
    assert bench.failed == [(1, False)]
    outcomes = {(shard_id, seq): error for shard_id, seq, error in bench.done}
    assert outcomes[2, 1] is None
    assert all(isinstance(outcomes[1, seq], CommitFailedError) for seq in (1, 2, 3))


async def test_refused_value_fails_its_own_shard_only() -> None:
    refusal = UnstorableError("postgres refuses a value")
    async with _running() as bench:
        for shard_id, seq in ((1, 1), (2, 1), (2, 2), (3, 1)):
            bench.enqueue(shard_id, seq)
        bench.answer(refusal, refusal, None, refusal, None)
        await bench.wait_done(4)
    written = bench.writer.written()[1:]
    assert written == [[(1, 1), (2, 1)], [(1, 1)], [(2, 1)], [(3, 1)]]
    assert bench.failed == [(2, False)]
    outcomes = {(shard_id, seq): error for shard_id, seq, error in bench.done}
    assert outcomes[2, 1] is refusal
    assert isinstance(outcomes[2, 2], CommitFailedError)
    assert outcomes[1, 1] is outcomes[3, 1] is None


async def test_fault_of_the_writer_fails_the_batch_and_goes_on() -> None:
    async with _running() as bench:
        bench.enqueue(1, 1)
        bench.answer(KeyError("a fault of ours"), None)
        await bench.wait_done(1)
        bench.enqueue(1, 2)
        await bench.wait_done(2)
    assert [type(error) for _, _, error in bench.done] == [CommitFailedError, type(None)]


async def test_shard_is_failed_before_anybody_is_told() -> None:
    async with _running() as bench:
        failed_when_told: list[int] = []
        bench.committer.enqueue(
            Commit(1, rows=[], on_done=lambda *_: failed_when_told.append(len(bench.failed)))
        )
        bench.answer(StorageUnavailableError("postgres", "gone"))
        await wait_until(lambda: failed_when_told)
    assert failed_when_told == [1]


async def test_rows_beside_the_log_are_written_in_the_order_of_their_commits() -> None:
    def update(length: int) -> RowChanges:
        changes = RowChanges()
        row = ExecutionUpdate(1, "run", 1, None, None, length, 0, owes=False)
        changes.add(UPDATE_EXECUTIONS, row)
        return changes

    async with _running() as bench:
        bench.enqueue(1, 1, changes=update(1))
        bench.enqueue(1, 2, changes=update(2))
        bench.answer(None)
        await bench.wait_done(2)
    written = bench.writer.batches[0].changes.of(UPDATE_EXECUTIONS)
    assert [row.history_length for row in written] == [1, 2]


def test_full_queue_says_so() -> None:
    bench = _Bench()
    for seq in range(MAX_QUEUED):
        assert not bench.committer.is_full
        bench.enqueue(1, seq)
    assert bench.committer.is_full


async def test_one_refused_among_many_is_found_in_a_few_writes() -> None:
    def is_bad(batch: CommitBatch) -> bool:
        return any(row.shard_seq == 700 for row in batch.log)

    async with _running() as bench:
        for seq in range(1000):
            bench.enqueue(seq, seq)
        while len(bench.done) < 1000:
            count = len(bench.writer.batches)
            if bench.writer.answers.empty() and count:
                refused = is_bad(bench.writer.batches[-1])
                bench.answer(UnstorableError("refused") if refused else None)
            await asyncio.sleep(0)
        assert len(bench.writer.batches) <= 2 * 10 + 1
    refused = [seq for _, seq, error in bench.done if error is not None]
    assert refused == [700]


async def test_outcome_that_cannot_be_told_fails_its_own_shard_only() -> None:
    def fail(*_: object) -> None:
        raise KeyError("a fault of ours")

    async with _running() as bench:
        bench.committer.enqueue(Commit(1, rows=[], on_done=fail))
        bench.enqueue(2, 1)
        await bench.wait_batches(1)
        bench.enqueue(1, 2)
        bench.enqueue(2, 2)
        bench.answer(None, None)
        await bench.wait_done(3)
    assert bench.failed == [(1, False)]
    outcomes = {(shard_id, seq): error for shard_id, seq, error in bench.done}
    assert outcomes[2, 1] is outcomes[2, 2] is None
    assert isinstance(outcomes[1, 2], CommitFailedError)
    assert not any((1, 2) in batch for batch in bench.writer.written())


async def test_failure_that_cannot_be_reported_fails_no_other() -> None:
    async with _running() as bench:

        def fail(shard_id: int, *_: object) -> None:
            bench.failed.append((shard_id, False))
            raise KeyError("a fault of ours")

        bench.committer._on_shard_failed = fail
        bench.enqueue(1, 1)
        bench.enqueue(2, 1)
        bench.answer(StorageUnavailableError("postgres", "gone"), None)
        await bench.wait_done(2)
        bench.enqueue(3, 1)
        await bench.wait_done(3)
    assert bench.failed == [(1, False), (2, False)]
    assert bench.done[-1] == (3, 1, None)


async def test_shard_at_fault_fails_what_waits_and_leaves_what_is_being_written() -> None:
    async with _running() as bench:
        bench.enqueue(1, 1)
        await bench.wait_batches(1)
        bench.enqueue(1, 2)
        bench.enqueue(1, 3, range_id=7)
        bench.enqueue(2, 1)
        bench.committer.fail_shard((1, 0))
        assert [(shard_id, seq) for shard_id, seq, _ in bench.done] == [(1, 2)]
        bench.answer(None, None)
        await bench.wait_done(4)
    # What was decided in another span of ownership is written.
    assert bench.writer.written() == [[(1, 1)], [(1, 3), (2, 1)]]
    outcomes = {(shard_id, seq): error for shard_id, seq, error in bench.done}
    assert isinstance(outcomes.pop((1, 2)), CommitFailedError)
    assert set(outcomes.values()) == {None}


async def test_batch_is_bounded_in_bytes_unless_one_commit_alone_is_larger() -> None:
    large, bound = b"x" * 3_000_000, committer_module._MAX_BATCH_BYTES
    async with _running() as bench:
        bench.enqueue(1, 0)
        await bench.wait_batches(1)
        for seq in range(1, 12):
            bench.enqueue(1, seq, large)
        bench.enqueue(1, 12, b"x" * (bound + 1))
        bench.enqueue(1, 13)
        bench.answer(*[None] * 6)
        await bench.wait_done(14)
    sizes = [sum(len(row.record) for row in batch.log) for batch in bench.writer.batches]
    counts = [len(batch.log) for batch in bench.writer.batches]
    assert counts == [1, 5, 5, 1, 1, 1]
    assert all(size <= bound for size in [*sizes[:4], sizes[5]])
    assert [seq for _, seq, _ in bench.done] == list(range(14))


def test_queue_with_too_many_bytes_says_how_many() -> None:
    bench = _Bench()
    large = b"x" * (MAX_QUEUED_BYTES // 4)
    for seq in range(4):
        bench.committer.check_room()
        bench.enqueue(1, seq, large)
    with pytest.raises(UnavailableError, match=r"4 commits of 1342\d+ bytes"):
        bench.committer.check_room()
    bench.committer.fail_shard((1, 0))
    bench.committer.check_room()
