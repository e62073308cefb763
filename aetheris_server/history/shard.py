"""A shard that this host has: its place in the log, and what its settlements write.

A settlement moves the watermark, behind which recovery begins to read. It passes a record only when
what owes something by it is flagged (`owing`). So recovery reads a few seconds of log and the
flagged rows, however long it has been owed.
"""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.errors import AetherisError
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.records import EMPTY_HASH, chain_hash
from aetheris_server.history.aggregates.transition import Ticket
from aetheris_server.history.owing import Owing
from aetheris_server.history.times import to_timestamp
from aetheris_server.storage.shards import WakeRewrite


def acquired_note(host_id: str, range_id: int, now: datetime) -> tuple[bytes, bytes]:
    """The record by which a host says in a shard's log that it has the shard, and its hash."""
    record = log_pb2.LogRecord(time=to_timestamp(now))
    fact = record.facts.add().shard_acquired
    fact.host_id = host_id
    fact.range_id = range_id
    stored = record.SerializeToString()
    return stored, chain_hash(EMPTY_HASH, stored)


@dataclass(slots=True)
class Settlement:
    """What one move of the watermark writes: see `Shard.plan_settlement`.

    Attributes:
        ticket: May be written when this one is done; None is at once.
    """

    watermark: int
    flag: list[AggregateKey]
    unflag: set[AggregateKey]
    wake_rewrites: dict[AggregateKey, WakeRewrite]
    ticket: Ticket | None = None

    @property
    def is_founded(self) -> bool:
        """Whether what it was made from is on disk, or has failed."""
        return self.ticket is None or self.ticket.is_done

    async def wait_founded(self) -> None:
        """Return when `is_founded`."""
        if self.ticket is not None:
            with suppress(AetherisError):
                await self.ticket.wait()

    @property
    def row_count(self) -> int:
        """The rows that it writes."""
        return 1 + len(self.flag) + len(self.unflag) + len(self.wake_rewrites)

    def is_worth_writing(self, watermark: int) -> bool:
        """Whether it says more than that a watermark stays where it is."""
        return bool(self.watermark > watermark or self.flag or self.unflag or self.wake_rewrites)


@dataclass(slots=True)
class Shard:
    """One owned shard.

    Attributes:
        next_seq: The number of the next log row.
        taken_at: When this host took the shard, by the clock for intervals; None if no host had it
            before.
        committed_seq: The last log row known to be on disk.
        last_ticket: Of the transition that was queued last; None for none.
        owing: The aggregates that owe something.
        wake_rewrites: Wake-ups that have fired and that the next settlement replaces.
    """

    shard_id: int
    range_id: int
    next_seq: int
    watermark: int
    taken_at: float | None = None
    committed_seq: int = 0
    last_ticket: Ticket | None = None
    is_recovered: bool = False
    owing: Owing = field(default_factory=Owing)
    wake_rewrites: dict[AggregateKey, WakeRewrite] = field(
        default_factory=dict[AggregateKey, WakeRewrite]
    )
    # What was on disk at the settlements before, oldest first.
    _marks: deque[int] = field(default_factory=deque[int])

    @property
    def owner(self) -> tuple[int, int]:
        """The shard and the range: this span of ownership."""
        return (self.shard_id, self.range_id)

    def take_seq(self) -> int:
        """The number of the next log row, which the caller writes."""
        seq = self.next_seq
        self.next_seq += 1
        return seq

    async def wait_written(self) -> None:
        """Return when everything that is queued for the shard now is on disk, or has failed.

        After a failure the shard is no longer among those of this host.
        """
        if self.last_ticket is not None:
            with suppress(AetherisError):
                await self.last_ticket.wait()

    def note_row_written(self, key: AggregateKey, owes: bool) -> None:
        """Note that a commit writes its row, and what that says of owing along with it."""
        self.owing.note_row_written(key, owes)
        self.wake_rewrites.pop(key, None)

    def plan_settlement(self, lag: int) -> Settlement:
        """What to write so that the watermark can move; call `settle` when it is written.

        The plan follows from the aggregates as they are in memory. So it may be written only when
        all that is queued now is on disk: a crash must not leave a watermark behind which one owes
        something that only a lost record had settled.

        Args:
            lag: Calls that one may owe something before it is flagged; one that is done sooner
                costs no write.
        """
        self._marks.append(self.committed_seq)
        target = self._marks.popleft() if len(self._marks) > lag else self.watermark
        # What an owner from before has left is known only once the shard is recovered.
        watermark = self.committed_seq if self.is_recovered else self.watermark
        plan = self.owing.plan(target)
        if plan.next_seq is not None:
            watermark = min(watermark, plan.next_seq - 1)
        settlement = Settlement(
            watermark=max(watermark, self.watermark),
            flag=plan.flag,
            unflag=plan.clear,
            wake_rewrites=dict(self.wake_rewrites),
            ticket=self.last_ticket,
        )
        # The last, so that a fault above takes no flag from the shard in vain.
        self.owing.begin(plan)
        return settlement

    def settle(self, settlement: Settlement) -> None:
        """Take note that a settlement is on disk."""
        self.watermark = settlement.watermark
        self.owing.settle(settlement.flag)
        for key, rewrite in settlement.wake_rewrites.items():
            if self.wake_rewrites.get(key) == rewrite:
                del self.wake_rewrites[key]

    def unsettle(self, settlement: Settlement) -> None:
        """Take note that a settlement is not known to be on disk."""
        self.owing.unsettle([*settlement.flag, *settlement.unflag])
