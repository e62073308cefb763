"""Group commit: what has queued while the last transaction was under way becomes the next.

There is no timer. One transaction is in flight at a time, so there is at most one batch in flight
per shard. A batch that fails because some of its shards were lost is written again without them;
one in which the store refuses a value is written again commit by commit.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from aetheris_server.errors import (
    AetherisError,
    CommitFailedError,
    RequestError,
    ShardLostError,
    ShardNotOwnedError,
    UnavailableError,
)
from aetheris_server.storage.commit import CommitBatch, LogWriter
from aetheris_server.storage.executions import ExecutionRow, ExecutionUpdate
from aetheris_server.storage.log import LogRow
from aetheris_server.storage.snapshots import SnapshotRow
from aetheris_server.telemetry import counter, gauge, get_logger, histogram

_log = get_logger(__name__)

_BATCHES = counter("commit_batches", "Transactions of the group commit.", ["result"])
_RECORDS = counter("commit_records", "Log records committed.")
_SECONDS = histogram("commit_seconds", "What one transaction of the group commit took.")
_QUEUED = gauge("commit_queue_length", "Transitions that wait for the next transaction.")

MAX_QUEUED = 20_000
_MAX_BATCH = 1_000


@dataclass(slots=True)
class Commit:
    """What one transition of one shard writes, and what follows from its success or failure.

    Attributes:
        rows: In shard_seq order; all are written or none is.
    """

    shard_id: int
    rows: list[LogRow]
    on_done: Callable[[AetherisError | None], None]
    inserts: list[ExecutionRow] = field(default_factory=list[ExecutionRow])
    updates: list[ExecutionUpdate] = field(default_factory=list[ExecutionUpdate])
    snapshots: list[SnapshotRow] = field(default_factory=list[SnapshotRow])


class Committer:
    """Writes commits in the order in which they were queued.

    `on_shard_failed(shard_id, is_lost)` is called, before anybody is told, for each shard whose
    commits failed: those in the batch and all that are queued behind them fail together, so that
    nothing is written on top of what is not on disk.
    """

    def __init__(self, writer: LogWriter, on_shard_failed: Callable[[int, bool], None]) -> None:
        self._writer = writer
        self._on_shard_failed = on_shard_failed
        self._queue: deque[Commit] = deque()
        self._singles = 0
        self._wake = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether a new transition should be refused until the disk has caught up."""
        return len(self._queue) >= MAX_QUEUED

    def enqueue(self, commit: Commit) -> None:
        """Take a commit into the next batch."""
        self._queue.append(commit)
        self._wake.set()

    async def run(self) -> None:
        """Write batches until cancelled; what is queued then is left unresolved."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await self._write(self._take_batch())

    def _take_batch(self) -> list[Commit]:
        batch: list[Commit] = []
        limit = _MAX_BATCH
        if self._singles:
            self._singles -= 1
            limit = 1
        rows = 0
        while self._queue and rows < limit:
            commit = self._queue.popleft()
            batch.append(commit)
            rows += max(len(commit.rows) + len(commit.snapshots), 1)
        _QUEUED.set(len(self._queue))
        return batch

    async def _write(self, commits: list[Commit]) -> None:
        while commits:
            batch = _gather(commits)
            try:
                with _SECONDS.time():
                    await self._writer.commit(batch)
            except ShardLostError as error:
                _BATCHES.labels("shard_lost").inc()
                _log.warning("shards lost to another host", shard_ids=sorted(error.shard_ids))
                commits = self._fail(commits, error.shard_ids, is_lost=True)
            except RequestError as error:
                self._find_fault(commits, error)
                return
            except UnavailableError as error:
                _log.error("commit failed", error=str(error))
                commits = self._fail_all(commits)
            except Exception:  # noqa: BLE001 - logged whole
                # Whatever it was, nothing may be built on what is not known to be on disk.
                _log.exception("commit failed")
                commits = self._fail_all(commits)
            else:
                _BATCHES.labels("committed").inc()
                _RECORDS.inc(len(batch.log))
                for commit in commits:
                    commit.on_done(None)
                return

    def _find_fault(self, commits: list[Commit], error: RequestError) -> None:
        """The store refuses something in a batch: write it commit by commit, and fail that one."""
        _BATCHES.labels("refused").inc()
        if len(commits) == 1:
            _log.error("a commit is refused", error=str(error), shard_id=commits[0].shard_id)
            self._fail(commits, frozenset({commits[0].shard_id}), is_lost=False, reason=error)
            return
        self._queue.extendleft(reversed(commits))
        self._singles = len(commits)

    def _fail_all(self, commits: list[Commit]) -> list[Commit]:
        _BATCHES.labels("failed").inc()
        shard_ids = frozenset(commit.shard_id for commit in commits)
        return self._fail(commits, shard_ids, is_lost=False)

    def _fail(
        self,
        commits: list[Commit],
        shard_ids: frozenset[int],
        *,
        is_lost: bool,
        reason: AetherisError | None = None,
    ) -> list[Commit]:
        """Fail all that these shards have in the batch and in the queue; the rest of the batch.

        The batch's commits fail for the reason, if one is given, and those behind them in any case
        because of what they were built on.
        """
        behind = [commit for commit in self._queue if commit.shard_id in shard_ids]
        self._queue = deque(commit for commit in self._queue if commit.shard_id not in shard_ids)
        for shard_id in shard_ids:
            self._on_shard_failed(shard_id, is_lost)
        for commit in commits:
            if commit.shard_id in shard_ids:
                commit.on_done(reason or _failure(commit.shard_id, is_lost=is_lost))
        for commit in behind:
            commit.on_done(_failure(commit.shard_id, is_lost=is_lost))
        return [commit for commit in commits if commit.shard_id not in shard_ids]


def _failure(shard_id: int, *, is_lost: bool) -> UnavailableError:
    return ShardNotOwnedError(shard_id) if is_lost else CommitFailedError(shard_id)


def _gather(commits: list[Commit]) -> CommitBatch:
    """One batch of all. Of several updates or snapshots of a run the last counts: each is whole."""
    log: list[LogRow] = []
    inserts: list[ExecutionRow] = []
    updates: dict[str, ExecutionUpdate] = {}
    snapshots: dict[str, SnapshotRow] = {}
    for commit in commits:
        log.extend(commit.rows)
        inserts.extend(commit.inserts)
        for update in commit.updates:
            updates[update.run_id] = update
        for snapshot in commit.snapshots:
            snapshots[snapshot.run_id] = snapshot
    return CommitBatch(
        log=log, inserts=inserts, updates=list(updates.values()), snapshots=list(snapshots.values())
    )
