"""Group commit: what has queued while the last transaction was under way becomes the next.

There is no timer. One transaction is in flight at a time, so there is at most one batch in flight
per shard. A batch that fails because some of its shards were lost is written again without them;
one in which the store refuses something is halved until the commit at fault is alone.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from aetheris_server.errors import (
    AetherisError,
    CommitFailedError,
    RequestError,
    ShardLostError,
    ShardNotOwnedError,
    UnavailableError,
)
from aetheris_server.loops import is_cancelled
from aetheris_server.storage.commit import CommitBatch, LogWriter
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.row_changes import RowChanges
from aetheris_server.telemetry import counter, gauge, get_logger, histogram

_log = get_logger(__name__)

_BATCHES = counter("commit_batches", "Transactions of the group commit.", ["result"])
_RECORDS = counter("commit_records", "Log records committed.")
_SECONDS = histogram("commit_seconds", "What one transaction of the group commit took.")
_QUEUED = gauge("commit_queue_length", "Transitions that wait for the next transaction.")
_QUEUED_BYTES = gauge("commit_queue_bytes", "What those transitions will write, about.")
_FAULTS = counter(
    "failed_outcomes", "Outcomes of commits that could not be told because of a fault."
)

MAX_QUEUED = 20_000
MAX_QUEUED_BYTES = 128 * 1024 * 1024
_MAX_BATCH = 1_000
# Far below what Postgres takes in one statement, and written within a fraction of its deadline.
_MAX_BATCH_BYTES = 16 * 1024 * 1024
# Of a row beside what its statement weighs, or its record.
_ROW_BYTES = 256

Owner = tuple[int, int]
"""(shard_id, range_id): one span of ownership of one shard."""


@dataclass(slots=True)
class Commit:
    """What one transition of one shard writes, and what follows from its success or failure.

    Attributes:
        rows: Of the log, in shard_seq order; all that the commit has is written or nothing is.
        changes: Rows beside the log.
        on_done: Called once with the commit and why it failed, if it did. It must not hold on to
            the commit, which holds on to it: every commit would be left to the garbage collector.
        range_id: Of the ownership in which it was decided.
        byte_count: What it writes, about; known once it is queued.
    """

    shard_id: int
    rows: list[LogRow]
    on_done: "Callable[[Commit, AetherisError | None], None]"
    changes: RowChanges = field(default_factory=RowChanges)
    range_id: int = 0
    byte_count: int = 0

    @property
    def owner(self) -> Owner:
        """Whose commit it is."""
        return (self.shard_id, self.range_id)


class Committer:
    """Writes commits in the order in which they were queued.

    `on_shard_failed(shard_id, range_id, is_lost)` is called, before anybody is told, for each shard
    whose commits failed: those in the batch and all that are queued behind them fail together, so
    that nothing is written on top of what is not on disk.
    """

    def __init__(
        self, writer: LogWriter, on_shard_failed: Callable[[int, int, bool], None]
    ) -> None:
        self._writer = writer
        self._on_shard_failed = on_shard_failed
        self._queue: deque[Commit] = deque()
        self._queued_bytes = 0
        # What has left the queue and is not being written yet; the last is the next.
        self._parts: list[list[Commit]] = []
        self._wake = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether a new transition should be refused until the disk has caught up."""
        return len(self._queue) >= MAX_QUEUED or self._queued_bytes >= MAX_QUEUED_BYTES

    def check_room(self) -> None:
        """Check that a new transition may be queued.

        Raises:
            UnavailableError: Not until the disk has caught up.
        """
        if len(self._queue) < MAX_QUEUED and self._queued_bytes < MAX_QUEUED_BYTES:
            return
        raise UnavailableError(
            f"the disk is behind: {len(self._queue)} commits of {self._queued_bytes} bytes"
            f" wait for it; {MAX_QUEUED} and {MAX_QUEUED_BYTES} are the limits"
        )

    def enqueue(self, commit: Commit) -> None:
        """Take a commit into the next batch."""
        commit.byte_count = _count_bytes(commit)
        self._queued_bytes += commit.byte_count
        self._queue.append(commit)
        self._wake.set()

    def fail_shard(self, owner: Owner) -> None:
        """Fail what waits for a shard, because of a fault: what is in memory of it may be wrong.

        A batch that is being written settles by itself: it is in the log before the note with which
        the shard is taken anew, or collides with that.
        """
        behind = self._withdraw({owner})
        self._report(owner, is_lost=False)
        for commit in behind:
            self._tell(commit, CommitFailedError(commit.shard_id))

    async def run(self) -> None:
        """Write batches until cancelled; what is queued then is left unresolved."""
        while not is_cancelled():
            await self._wake.wait()
            self._wake.clear()
            while (self._parts or self._queue) and not is_cancelled():
                if not self._parts:
                    self._parts.append(self._take_batch())
                await self._write(self._parts.pop())

    def _take_batch(self) -> list[Commit]:
        batch: list[Commit] = []
        row_count = byte_count = 0
        while self._queue and row_count < _MAX_BATCH:
            commit = self._queue[0]
            byte_count += commit.byte_count
            if batch and byte_count > _MAX_BATCH_BYTES:
                break
            batch.append(self._queue.popleft())
            self._queued_bytes -= commit.byte_count
            row_count += max(len(commit.rows), len(commit.changes), 1)
        _QUEUED.set(len(self._queue))
        _QUEUED_BYTES.set(self._queued_bytes)
        return batch

    async def _write(self, commits: list[Commit]) -> None:
        batch = _gather(commits)
        try:
            with _SECONDS.time():
                await self._writer.commit(batch)
        except ShardLostError as error:
            _BATCHES.labels("shard_lost").inc()
            _log.warning("shards lost", shard_ids=sorted(error.shard_ids), error=str(error))
            self._fail(commits, error.shard_ids, is_lost=True)
        except RequestError as error:
            self._find_fault(commits, error)
        except UnavailableError as error:
            _log.error("commit failed", error=str(error))
            self._fail_all(commits)
        except Exception:  # noqa: BLE001 - logged whole
            # Whatever it was, nothing may be built on what is not known to be on disk.
            _log.exception("commit failed")
            self._fail_all(commits)
        else:
            _BATCHES.labels("committed").inc()
            _RECORDS.inc(len(batch.log))
            for commit in commits:
                if not self._tell(commit, None):
                    self.fail_shard(commit.owner)

    def _find_fault(self, commits: list[Commit], error: RequestError) -> None:
        """The store refuses something in a batch: halve it, and fail what is refused alone."""
        _BATCHES.labels("refused").inc()
        if len(commits) > 1:
            middle = len(commits) // 2
            self._parts += [commits[middle:], commits[:middle]]
            return
        _log.error("a commit is refused", error=str(error), shard_id=commits[0].shard_id)
        self._fail(commits, frozenset({commits[0].shard_id}), is_lost=False, reason=error)

    def _fail_all(self, commits: list[Commit]) -> None:
        _BATCHES.labels("failed").inc()
        shard_ids = frozenset(commit.shard_id for commit in commits)
        self._fail(commits, shard_ids, is_lost=False)

    def _fail(
        self,
        commits: list[Commit],
        shard_ids: frozenset[int],
        *,
        is_lost: bool,
        reason: AetherisError | None = None,
    ) -> None:
        """Fail all that these shards have in a batch and behind it; the rest of it is written next.

        The batch's commits fail for the reason, if one is given, and those behind them in any case
        because of what they were built on.
        """
        failed = [commit for commit in commits if commit.shard_id in shard_ids]
        rest = [commit for commit in commits if commit.shard_id not in shard_ids]
        owners = {commit.owner for commit in failed}
        behind = self._withdraw(owners)
        if rest:
            self._parts.append(rest)
        for owner in sorted(owners):
            self._report(owner, is_lost=is_lost)
        for commit in failed:
            self._tell(commit, reason or _failure(commit.shard_id, is_lost=is_lost))
        for commit in behind:
            self._tell(commit, _failure(commit.shard_id, is_lost=is_lost))

    def _withdraw(self, owners: Collection[Owner]) -> list[Commit]:
        """Take from the parts and the queue what is of these owners; it, in order."""
        waiting = [*reversed(self._parts), self._queue]
        found = [commit for part in waiting for commit in part if commit.owner in owners]
        if found:
            kept = ([one for one in part if one.owner not in owners] for part in self._parts)
            self._parts = [part for part in kept if part]
            self._queue = deque(one for one in self._queue if one.owner not in owners)
            self._queued_bytes = sum(one.byte_count for one in self._queue)
        return found

    def _report(self, owner: Owner, *, is_lost: bool) -> None:
        try:
            self._on_shard_failed(*owner, is_lost)
        except Exception:  # noqa: BLE001 - logged whole
            # The shards of others are still to be written.
            _log.exception("a shard that failed could not be forgotten", shard_id=owner[0])
            _FAULTS.inc()

    def _tell(self, commit: Commit, error: AetherisError | None) -> bool:
        """Tell whoever waits what came of a commit; whether that went without a fault."""
        try:
            commit.on_done(commit, error)
        except Exception:  # noqa: BLE001 - logged whole
            # The outcomes of others are still to be told.
            _log.exception("a commit's outcome could not be told", shard_id=commit.shard_id)
            _FAULTS.inc()
            return False
        return True


def _failure(shard_id: int, *, is_lost: bool) -> UnavailableError:
    return ShardNotOwnedError(shard_id) if is_lost else CommitFailedError(shard_id)


def _count_bytes(commit: Commit) -> int:
    count = 0
    for row in commit.rows:
        count += _ROW_BYTES + len(row.record)
    for statement, changed in commit.changes.items():
        count += _ROW_BYTES * len(changed)
        if statement.weigh is not None:
            count += sum(map(statement.weigh, changed))
    return count


def _gather(commits: list[Commit]) -> CommitBatch:
    """One batch of all, in their order."""
    batch = CommitBatch()
    for commit in commits:
        batch.log.extend(commit.rows)
        batch.changes.extend(commit.changes)
    return batch
