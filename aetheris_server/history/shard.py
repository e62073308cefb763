"""A shard that this host has: its place in the log, and the runs in it that owe tasks.

The owing runs are what recovery needs. A run that owes tasks is named by the log behind the shard's
watermark, or is flagged in its executions row; the watermark passes a record only when that holds.
So recovery reads a few seconds of log and the flagged rows, however long the tasks have been out.
"""

from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from aetheris_server.errors import AetherisError
from aetheris_server.history.run import Ticket
from aetheris_server.history.state.run import RunKey

# In one settlement, so that its transaction stays small.
_MAX_FLAGS = 2_000


@dataclass(slots=True)
class WakeRewrite:
    """A wake_time that has fired and is to be replaced, if it is still there."""

    old_time: datetime
    new_time: datetime | None


@dataclass(slots=True)
class Settlement:
    """What one move of the watermark writes: see `Shard.plan_settlement`.

    Attributes:
        ticket: May be written when this one is done; None is at once.
    """

    watermark: int
    flag: list[RunKey]
    unflag: set[RunKey]
    wake_rewrites: dict[str, WakeRewrite]
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
        owing: Runs that owe tasks and are not flagged, by the last log row that named them, oldest
            first.
        flagged: Runs whose executions row says that they owe tasks, and that do.
        stale_flags: Runs whose row says so, and that do not.
    """

    shard_id: int
    range_id: int
    next_seq: int
    watermark: int
    taken_at: float | None = None
    committed_seq: int = 0
    last_ticket: Ticket | None = None
    is_recovered: bool = False
    owing: OrderedDict[RunKey, int] = field(default_factory=OrderedDict[RunKey, int])
    flagged: set[RunKey] = field(default_factory=set[RunKey])
    stale_flags: set[RunKey] = field(default_factory=set[RunKey])
    wake_rewrites: dict[str, WakeRewrite] = field(default_factory=dict[str, WakeRewrite])
    _flagging: set[RunKey] = field(default_factory=set[RunKey])
    _unflagging: set[RunKey] = field(default_factory=set[RunKey])
    # Whose row may or may not say so.
    _unsure: set[RunKey] = field(default_factory=set[RunKey])
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

    def note_owing(self, key: RunKey, owes: bool, seq: int) -> None:
        """Note whether a run owes tasks after the log row `seq`."""
        if not owes:
            self.owing.pop(key, None)
            if key in self.flagged:
                self.flagged.remove(key)
                self.stale_flags.add(key)
        elif key in self.stale_flags:
            self.stale_flags.remove(key)
            self.flagged.add(key)
        elif key not in self.flagged:
            self.owing[key] = seq
            self.owing.move_to_end(key)

    def note_row_written(self, key: RunKey, owes: bool) -> None:
        """Note that a commit writes the run's row, and whether it owes tasks along with it."""
        # Which of the two gets to the disk last, this or a flag on its way there, is not known.
        self._flagging.discard(key)
        if not owes:
            self.flagged.discard(key)
            self.stale_flags.discard(key)
        elif key not in self._unflagging:
            self.owing.pop(key, None)
            self.stale_flags.discard(key)
            self.flagged.add(key)
        self.wake_rewrites.pop(key.run_id, None)

    def note_recovered(self, key: RunKey, *, owes: bool, is_flagged: bool) -> None:
        """Note what recovery found of a run that the log behind the watermark or a flag names."""
        if is_flagged:
            (self.flagged if owes else self.stale_flags).add(key)
        elif owes:
            self.owing[key] = self.watermark + 1
            self.owing.move_to_end(key, last=False)

    def owing_runs(self) -> list[RunKey]:
        """Every run that owes tasks."""
        return [*self.owing, *self.flagged]

    def plan_settlement(self, lag: int) -> Settlement:
        """What to write so that the watermark can move; call `settle` when it is written.

        The plan follows from the runs as they are in memory. So it may be written only when all
        that is queued now is on disk: a crash must not leave a watermark behind which a run owes
        tasks that only a lost record had settled.

        Args:
            lag: Calls that a run may owe tasks before it is flagged; a run that is done sooner
                costs no write.
        """
        self._marks.append(self.committed_seq)
        target = self._marks.popleft() if len(self._marks) > lag else self.watermark
        watermark = self.committed_seq if self.is_recovered else self.watermark
        flag: list[RunKey] = []
        for key, seq in self.owing.items():
            if seq > target or len(flag) == _MAX_FLAGS:
                watermark = min(watermark, seq - 1)
                break
            flag.append(key)
        # A run that owes tasks again while its flag is being cleared counts as never flagged.
        unflag = self.stale_flags | {
            key for key in self._unsure if key not in self.owing and key not in self.flagged
        }
        settlement = Settlement(
            watermark=max(watermark, self.watermark),
            flag=flag,
            unflag=unflag,
            wake_rewrites=dict(self.wake_rewrites),
            ticket=self.last_ticket,
        )
        # From here on nothing can fail, so that no flag is taken from the shard in vain.
        self._flagging, self._unflagging = set(flag), unflag
        self.stale_flags, self._unsure = set(), set()
        return settlement

    def settle(self, settlement: Settlement) -> None:
        """Take note that a settlement is on disk."""
        self.watermark = settlement.watermark
        self._unflagging = set()
        for key in settlement.flag:
            if key not in self._flagging:
                self._unsure.add(key)
            elif self.owing.pop(key, None) is not None:
                self.flagged.add(key)
            else:
                self.stale_flags.add(key)
        self._flagging = set()
        for run_id, rewrite in settlement.wake_rewrites.items():
            if self.wake_rewrites.get(run_id) == rewrite:
                del self.wake_rewrites[run_id]

    def unsettle(self, settlement: Settlement) -> None:
        """Take note that a settlement is not known to be on disk."""
        self._flagging, self._unflagging = set(), set()
        self._unsure |= {*settlement.flag, *settlement.unflag}
