"""A run in memory: its state, what workers have of it, its newest events, and who waits for it.

State runs ahead of the disk. Everything that leaves the process, an answer, a task or a read, waits
until what it shows is committed (`wait_committed`).
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import datetime

from aetheris.api.v1 import history_pb2, worker_service_pb2
from aetheris.server.v1 import matching_service_pb2
from aetheris_server.errors import AetherisError, ShardNotOwnedError
from aetheris_server.history.run_time import RunTime
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.run import RunKey, RunState

_TAIL_MAX_EVENTS = 512
_TAIL_MAX_BYTES = 512 * 1024
_FIXED_BYTES = 4096
_INFLIGHT_BYTES = 512
# So much of a log is written between snapshots at most, or twice the snapshot where that is more.
_SNAPSHOT_MIN_BYTES = 16 * 1024 * 1024
# Well below what a column takes. A run with a larger state has no snapshots.
_SNAPSHOT_MAX_BYTES = 64 * 1024 * 1024


class Ticket:
    """A commit to come. Any number of tasks may `wait`, and any of them may be cancelled."""

    __slots__ = ("_error", "_is_done", "_waiters")

    def __init__(self) -> None:
        self._is_done = False
        self._error: AetherisError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_done(self) -> bool:
        """Whether the commit has succeeded or failed."""
        return self._is_done

    async def wait(self) -> None:
        """Return when the commit is on disk.

        Raises:
            UnavailableError: It failed, or is not known to have succeeded.
            UnstorableError: The store refuses a value in it.
        """
        if not self._is_done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error

    def resolve(self, error: AetherisError | None = None) -> None:
        """Let the waiters go on."""
        self._is_done = True
        self._error = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


@dataclass(slots=True)
class Transition:
    """A record that has been applied and queued.

    Attributes:
        ticket: Tells when it is on disk.
        refs: Tasks that are offered to matching then. Who takes one eagerly removes it before it
            awaits anything.
    """

    ticket: Ticket
    refs: list[matching_service_pb2.TaskRef]


class EventTail:
    """The newest events of a run, without gaps up to its next id; bounded in number and bytes."""

    __slots__ = ("_bytes", "_events", "_next_event_id")

    def __init__(self, next_event_id: int) -> None:
        self._events: deque[tuple[history_pb2.HistoryEvent, int]] = deque()
        self._bytes = 0
        self._next_event_id = next_event_id

    @property
    def byte_count(self) -> int:
        """What the events take, encoded."""
        return self._bytes

    def extend(self, events: list[history_pb2.HistoryEvent]) -> None:
        """Append events that follow without a gap."""
        for event in events:
            size = event.ByteSize()
            self._events.append((event, size))
            self._bytes += size
        self._next_event_id += len(events)
        while len(self._events) > _TAIL_MAX_EVENTS or (
            self._bytes > _TAIL_MAX_BYTES and len(self._events) > 1
        ):
            self._bytes -= self._events.popleft()[1]

    def try_slice(
        self, from_event_id: int, until_event_id: int
    ) -> list[history_pb2.HistoryEvent] | None:
        """Events with from_event_id <= id < until_event_id; None if some are no longer here."""
        if until_event_id <= from_event_id:
            return []
        first_event_id = self._next_event_id - len(self._events)
        if from_event_id < first_event_id or until_event_id > self._next_event_id:
            return None
        start = from_event_id - first_event_id
        if start == 0 and until_event_id == self._next_event_id:
            return [event for event, _ in self._events]
        stop = until_event_id - first_event_id
        return [self._events[index][0] for index in range(start, stop)]


@dataclass(slots=True)
class WaitingQuery:
    """A query that a client waits for; `answer` gets what the worker said."""

    query_id: str
    query: worker_service_pb2.WorkflowQuery
    answer: asyncio.Future[worker_service_pb2.WorkflowQueryResult]
    expire_time: datetime


class LoadedRun:
    """One run in the cache of the host that has its shard.

    Attributes:
        time: The run's own, which all that happens to it goes by.
        tail: The newest events; those from `committed_event_id` on are not on disk yet.
        committed_event_id: The next event id, as far as the disk has it.
        wake_time: The executions row's, as far as is known: never later than the truth calls for.
        repeats_id: The workflow id had a run before; known of a run that is being started only.
        snapshot_seq: The run_seq of the newest snapshot; 0 for none.
        snapshot_bytes: The history_bytes of the newest snapshot; 0 for none.
        weight: What the cache has counted for it, in bytes.
        is_dropped: No longer in the cache: load the run again.
    """

    __slots__ = (
        "_started_bytes",
        "_watchers",
        "committed_event_id",
        "inflight",
        "is_dropped",
        "key",
        "last_ticket",
        "queries",
        "repeats_id",
        "shard_id",
        "snapshot_bytes",
        "snapshot_seq",
        "state",
        "tail",
        "time",
        "wake_time",
        "weight",
    )

    def __init__(self, shard_id: int, state: RunState) -> None:
        self.shard_id = shard_id
        self.key: RunKey = state.key
        self.state = state
        self.time = RunTime(state.start_time)
        self.inflight = Inflight()
        self._started_bytes = state.started.ByteSize()
        self.tail = EventTail(state.next_event_id)
        self.committed_event_id = state.next_event_id
        self.last_ticket: Ticket | None = None
        self.wake_time: datetime | None = None
        self.repeats_id = False
        self.snapshot_seq = 0
        self.snapshot_bytes = 0
        self.queries: dict[str, WaitingQuery] = {}
        self.weight = 0
        self.is_dropped = False
        self._watchers: list[asyncio.Future[None]] = []

    @property
    def is_committed(self) -> bool:
        """Whether all of the state is on disk."""
        return self.last_ticket is None or self.last_ticket.is_done

    @property
    def is_evictable(self) -> bool:
        """Whether nothing would be lost, and nobody kept waiting, by dropping it from memory."""
        return (
            self.is_committed and self.inflight.is_idle and not self.queries and not self._watchers
        )

    def estimate_bytes(self) -> int:
        """Roughly what it takes in memory: its newest events, its state, its tasks in flight."""
        return (
            _FIXED_BYTES
            + self.tail.byte_count
            + self._started_bytes
            + self.state.byte_count
            + _INFLIGHT_BYTES * len(self.inflight.activities)
        )

    def needs_snapshot(self, interval_records: int) -> bool:
        """Whether so much has come since the newest snapshot that reading it back takes long."""
        state = self.state
        byte_count = state.history_bytes - self.snapshot_bytes
        is_long = state.run_seq - self.snapshot_seq >= interval_records
        if not is_long and byte_count < _SNAPSHOT_MIN_BYTES:
            return False
        if state.byte_count > _SNAPSHOT_MAX_BYTES:
            return False
        return is_long or byte_count >= 2 * state.byte_count

    def note_snapshot(self) -> None:
        """Note that a snapshot of the state as it is now is, or will be, on disk."""
        self.snapshot_seq = self.state.run_seq
        self.snapshot_bytes = self.state.history_bytes

    async def wait_committed(self) -> None:
        """Return when all that the state shows now is on disk.

        So a read first takes from the state what it shows, then waits for this: it is of the moment
        it was asked for, however many transitions follow each other meanwhile.

        Raises:
            UnavailableError: It will not be: the state was wrong and has been dropped.
        """
        if self.last_ticket is not None:
            await self.last_ticket.wait()

    async def wait_changed(self) -> None:
        """Return after the next commit, or when the run is dropped."""
        watcher = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        try:
            await watcher
        except asyncio.CancelledError:
            if watcher in self._watchers:
                self._watchers.remove(watcher)
            raise

    def abandon(self) -> None:
        """Send those who wait for this run to the one that is loaded in its place."""
        for waiting in self.queries.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(ShardNotOwnedError(self.shard_id))
                # Who asked may have gone; the error is then nobody's.
                waiting.answer.exception()
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for a change."""
        watchers, self._watchers = self._watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)
