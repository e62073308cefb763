"""The aggregates of a shard that owe something, and whose rows say so: what recovery finds them by.

One that owes something is named by the log behind the shard's watermark, or flagged in its row
(`owes`); one that has closed is flagged, or owes nothing. Where it is in memory, by what it owes
and what its row says:

    place       owes   row      a crash now: found by
    (none)      no     clear    nobody needs to
    unflagged   yes    clear    the log: the watermark stays before it
    flagged     yes    set      its flag
    stale       no     set      its flag, in vain

What moves it, by the place where it is:

    what happens               (none)      unflagged   flagged     stale
    note: owes                 unflagged   stays, *1   stays       flagged
    note: owes nothing         stays       (none)      stale       stays
    row written: owes          –           flagged *2  stays       –
    row written: owes nothing  stays       –           –           (none)
    planned to be flagged      –           stays       –           –
    planned to be cleared      –           –           –           (none)
    settled, was to be flagged stale *3    flagged *3  –           –

    *1  by its newest log row. *2  stays while it is being cleared. *3  stays if its row was written
    meanwhile. `note` comes before `note_row_written`, so that some cannot be.

A settlement takes a while to get to the disk, and commits go on. So one may be, beside its place:

    flagging    its flag is on its way. A commit that writes its row takes it out of here: which of
                the two gets to the disk last is not known.
    unflagging  its flag is being cleared. If it owes again meanwhile it is unflagged, not flagged.
    unsure      its row may say either, after such a race or a settlement that failed. It is cleared
                by the next settlement unless it owes by then.

A settlement leaves the flag of what has closed meanwhile as the closing commit has written it.

A flag too many costs a look at the aggregate; one too few would lose what it owes.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from aetheris_server.history.aggregates.key import AggregateKey

# In one settlement, so that its transaction stays small.
_MAX_FLAGS = 2_000


@dataclass(frozen=True, slots=True)
class FlagPlan:
    """Which rows the next settlement flags and clears.

    Attributes:
        flag: Unflagged aggregates, by the last log row that named them, oldest first.
        clear: Aggregates that owe nothing, as far as is known now.
        next_seq: The log row that the watermark must stay before; None for none.
    """

    flag: list[AggregateKey]
    clear: set[AggregateKey]
    next_seq: int | None


class Owing:
    """The owing aggregates of one shard. No I/O; one settlement is under way at a time.

    Attributes:
        unflagged: With the last log row that named each, oldest first.
        flagged: In no order.
        stale: Aggregates that owe nothing and whose rows say that they do.
    """

    __slots__ = ("_flagging", "_unflagging", "_unsure", "flagged", "stale", "unflagged")

    def __init__(self) -> None:
        self.unflagged: OrderedDict[AggregateKey, int] = OrderedDict()
        self.flagged: set[AggregateKey] = set()
        self.stale: set[AggregateKey] = set()
        self._flagging: set[AggregateKey] = set()
        self._unflagging: set[AggregateKey] = set()
        self._unsure: set[AggregateKey] = set()

    def all(self) -> list[AggregateKey]:
        """Every aggregate that owes something."""
        return [*self.unflagged, *self.flagged]

    def note(self, key: AggregateKey, owes: bool, seq: int) -> None:
        """Note whether an aggregate owes something after the log row `seq`."""
        if not owes:
            self.unflagged.pop(key, None)
            if key in self.flagged:
                self.flagged.remove(key)
                self.stale.add(key)
        elif key in self.stale:
            self.stale.remove(key)
            self.flagged.add(key)
        elif key not in self.flagged:
            self.unflagged[key] = seq
            self.unflagged.move_to_end(key)

    def note_row_written(self, key: AggregateKey, owes: bool) -> None:
        """Note that a commit writes its row, and what that says of owing along with it."""
        self._flagging.discard(key)
        if not owes:
            self.flagged.discard(key)
            self.stale.discard(key)
        elif key not in self._unflagging:
            self.unflagged.pop(key, None)
            self.stale.discard(key)
            self.flagged.add(key)

    def note_recovered(
        self, key: AggregateKey, *, owes: bool, is_flagged: bool, watermark: int
    ) -> None:
        """Note what recovery found of one that a flag or the log behind the watermark names."""
        if is_flagged:
            (self.flagged if owes else self.stale).add(key)
        elif owes:
            # Which of the log's rows named it is not known: none may be passed.
            self.unflagged[key] = watermark + 1
            self.unflagged.move_to_end(key, last=False)

    def plan(self, until_seq: int) -> FlagPlan:
        """What lets the watermark pass log rows up to `until_seq`. Changes nothing."""
        flag: list[AggregateKey] = []
        next_seq = None
        for key, seq in self.unflagged.items():
            if seq > until_seq or len(flag) == _MAX_FLAGS:
                next_seq = seq
                break
            flag.append(key)
        unsure = {
            key for key in self._unsure if key not in self.unflagged and key not in self.flagged
        }
        return FlagPlan(flag, self.stale | unsure, next_seq)

    def begin(self, plan: FlagPlan) -> None:
        """Take note that a plan that has just been made is on its way to the disk."""
        self._flagging, self._unflagging = set(plan.flag), plan.clear
        # An aggregate that owes again while its flag is being cleared counts as never flagged.
        self.stale, self._unsure = set(), set()

    def settle(self, flagged: Iterable[AggregateKey]) -> None:
        """Take note that the plan under way, which flagged these, is on disk."""
        self._unflagging = set()
        for key in flagged:
            if key not in self._flagging:
                self._unsure.add(key)
            elif self.unflagged.pop(key, None) is not None:
                self.flagged.add(key)
            else:
                self.stale.add(key)
        self._flagging = set()

    def unsettle(self, planned: Iterable[AggregateKey]) -> None:
        """Take note that the plan under way, which was to change these, may be on disk or not."""
        self._flagging, self._unflagging = set(), set()
        self._unsure.update(planned)
