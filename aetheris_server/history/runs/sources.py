"""Reading the runs that a new one is made of: its base, and what follows that.

They are read from the disk, as their shard may be another host's; what is there never changes, and
has all that was acknowledged. Each record is held against the hash chain on the way.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import BrokenLogError
from aetheris_server.history.aggregates.records import (
    EMPTY_HASH,
    chain_hash,
    decode_record,
)
from aetheris_server.history.engine.beginning import Beginning
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.lifecycle.successor import find_next_run_id
from aetheris_server.history.state.machines.reset import find_reset_to
from aetheris_server.history.state.reset.new_run import NewRunBuilder
from aetheris_server.history.state.reset.point import PointFinder
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.storage.database import Database
from aetheris_server.storage.log import RunRecord, load_run_part

_PART_ROWS = 256
_PART_BYTES = 4 * 1024 * 1024
# What else the event loop has to do comes in between.
_EVENTS_AT_ONCE = 1_000


class RunLog:
    """The log of one run, read once from its start on."""

    def __init__(self, db: Database, shard_id: int, run_id: str) -> None:
        self.run_id = run_id
        self.next_event_id = 1
        self._db = db
        self._shard_id = shard_id
        self._seq = 0
        self._hash = EMPTY_HASH

    async def read(self) -> AsyncGenerator[log_pb2.LogRecord]:
        """What the disk has, or has more since the last time.

        Raises:
            BrokenLogError: A record is missing or was altered.
            UnknownRecordError: A newer program wrote one.
            StorageUnavailableError: Postgres does not answer.
        """
        next_pause = self.next_event_id + _EVENTS_AT_ONCE
        while rows := await load_run_part(
            self._db, self._shard_id, self.run_id, self._seq, _PART_ROWS, _PART_BYTES
        ):
            for row in rows:
                yield self._decode(row)
                if self.next_event_id >= next_pause:
                    next_pause = self.next_event_id + _EVENTS_AT_ONCE
                    await asyncio.sleep(0)

    def _decode(self, row: RunRecord) -> log_pb2.LogRecord:
        seq = self._seq + 1
        if row.run_seq != seq:
            raise BrokenLogError(self.run_id, seq, f"record {seq}", f"record {row.run_seq}")
        chained = chain_hash(self._hash, row.record)
        if chained != row.hash:
            raise BrokenLogError(
                self.run_id, seq, f"hash {chained.hex()}", f"hash {row.hash.hex()}"
            )
        record = decode_record(self.run_id, seq, row.record)
        self._seq, self._hash = seq, chained
        self.next_event_id += len(record.events)
        return record


async def find_point(
    db: Database, shard_id: int, run_id: str, point: workflow_service_pb2.ResetPoint
) -> int:
    """The started event of the workflow task that a point names.

    Raises:
        InvalidArgumentError: The run has no such task.
        RunUnreadableError: What is stored of the run cannot be used.
        StorageUnavailableError: Postgres does not answer.
    """
    finder = PointFinder(point)
    async with aclosing(RunLog(db, shard_id, run_id).read()) as records:
        async for record in records:
            if any(finder.take(event) for event in record.events):
                break
    return finder.find()


class Sources:
    """Shows the builder of a new run the runs that it is made of."""

    def __init__(self, db: Database, shard_id: int, builder: NewRunBuilder) -> None:
        """Args:
        db: Where the log is.
        shard_id: Of the base's workflow id.
        builder: Of the new run.
        """
        self._db = db
        self._shard_id = shard_id
        self._builder = builder
        self._logs: dict[str, RunLog] = {}

    async def read(self) -> None:
        """Read the base, and the runs that continue it or that it was reset to, to their ends.

        Raises:
            InvalidArgumentError: There is more than a new run can take.
            RunUnreadableError: What is stored of one cannot be used.
            StorageUnavailableError: Postgres does not answer.
        """
        waiting = deque([self._builder.run.base.run_id])
        while waiting:
            run_id = waiting.popleft()
            if run_id in self._logs:
                continue
            log = self._logs[run_id] = RunLog(self._db, self._shard_id, run_id)
            followers = await self._read_one(log)
            if self._builder.later.takes_others:
                waiting += followers

    async def read_on(self) -> None:
        """Read what the disk has got since.

        Raises:
            InvalidArgumentError: There is more than a new run can take.
            RunUnreadableError: What is stored of one cannot be used.
            StorageUnavailableError: Postgres does not answer.
        """
        for log in self._logs.values():
            await self._read_one(log)

    async def _read_one(self, log: RunLog) -> list[str]:
        """Returns the runs that follow it."""
        base_id = self._builder.run.base.run_id
        followers: list[str] = []
        async with aclosing(log.read()) as records:
            async for record in records:
                if log.run_id == base_id:
                    self._builder.take(record)
                else:
                    self._builder.later.take(record, record.events, of_base=False)
                followers += _followers(record)
        return followers

    def try_take_newest(self, run: LoadedRun, closing: Sequence[history_pb2.HistoryEvent]) -> bool:
        """Take what is not on disk yet of an open run, if it is one of those, and its last events.
        Never awaits.

        Returns:
            Whether memory had all of it; if not, nothing was taken, and the disk is to be read on.
        """
        log = self._logs.get(run.key.run_id)
        if log is None:
            return True
        events = run.tail.try_slice(log.next_event_id, run.next_event_id)
        if events is None:
            return False
        later = self._builder.later
        of_base = run.key == self._builder.run.base
        later.take(log_pb2.LogRecord(), [*events, *closing], of_base=of_base)
        later.end_run(is_buffer_flushed=True)
        if of_base:
            later.take_state(run.state)
        return True


def _followers(record: log_pb2.LogRecord) -> list[str]:
    found = [find_next_run_id(event) for event in record.events[-1:]]
    found += [find_reset_to(fact) for fact in record.facts]
    return [run_id for run_id in found if run_id]


class Copy:
    """The new run in the making; nobody finds it before it is committed.

    Attributes:
        beginning: What is to be committed; None before its first record.
    """

    def __init__(self, runs: Runs, key: RunKey, *, repeats_id: bool) -> None:
        """Args:
        runs: Of the host that has its shard.
        key: With a new run id.
        repeats_id: The workflow id had a run before.
        """
        self.beginning: Beginning | None = None
        self._runs = runs
        self._key = key
        self._repeats_id = repeats_id

    def fold(self, record: log_pb2.LogRecord) -> RunState:
        """Take its next record."""
        beginning = self.beginning
        if beginning is None:
            # One that says that it continues a run has an entry among the repeats, too.
            started = record.events[0].workflow_execution_started_event_attributes
            repeats_id = self._repeats_id or bool(started.continued_execution_run_id)
            run = self._runs.create(self._key, record, repeats_id=repeats_id)
            beginning = self.beginning = Beginning(run)
        beginning.take(record)
        return cast("LoadedRun", beginning.aggregate).state

    def finish(self, record: log_pb2.LogRecord) -> Beginning:
        """Take its last record."""
        self.fold(record)
        assert self.beginning is not None
        return self.beginning
