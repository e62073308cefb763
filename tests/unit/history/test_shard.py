"""The watermark, and the flags of what has owed something for long."""

import random
from collections import deque
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from aetheris_server.errors import CommitFailedError
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.transition import Ticket
from aetheris_server.history.recovery.settling import Settler
from aetheris_server.history.shard import Settlement, Shard
from aetheris_server.history.state.run import RunKey
from aetheris_server.storage.shards import WakeRewrite
from tests.support.clock import ManualClock
from tests.support.memory_engine import MemoryEngine

_LAG = 1


def _key(name: str) -> RunKey:
    return RunKey("namespace", f"workflow-{name}", name)


def _shard(watermark: int = 0) -> Shard:
    return Shard(
        shard_id=1,
        range_id=1,
        next_seq=watermark + 1,
        watermark=watermark,
        committed_seq=watermark,
        is_recovered=True,
    )


def _commit(shard: Shard, key: RunKey, owes: bool, *, writes_row: bool = False) -> int:
    seq = shard.take_seq()
    shard.owing.note(key, owes, seq)
    if writes_row:
        shard.note_row_written(key, owes)
    shard.committed_seq = seq
    return seq


def _settle(shard: Shard) -> Settlement:
    settlement = shard.plan_settlement(_LAG)
    shard.settle(settlement)
    return settlement


def test_watermark_without_owing_runs_follows_the_log() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=False)
    assert _settle(shard).watermark == 1
    assert shard.watermark == 1


def test_watermark_stays_before_a_run_that_owes() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=False)
    _commit(shard, _key("b"), owes=True)
    _commit(shard, _key("c"), owes=False)
    assert _settle(shard).watermark == 1


def test_run_that_owes_for_long_is_flagged_and_passed() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    assert _settle(shard).flag == []
    settlement = _settle(shard)
    assert (settlement.flag, settlement.watermark) == ([_key("a")], 1)
    assert shard.owing.flagged == {_key("a")}
    assert shard.owing.all() == [_key("a")]


def test_run_that_is_done_sooner_is_never_flagged() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    _settle(shard)
    _commit(shard, _key("a"), owes=False)
    assert _settle(shard).flag == []
    assert shard.owing.all() == []


def test_run_named_again_counts_from_its_newest_row() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    _settle(shard)
    _commit(shard, _key("a"), owes=True)
    settlement = _settle(shard)
    assert (settlement.flag, settlement.watermark) == ([], 1)


def test_flagged_run_that_is_done_is_unflagged_once() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    _settle(shard)
    _settle(shard)
    _commit(shard, _key("a"), owes=False)
    assert _settle(shard).unflag == {_key("a")}
    assert _settle(shard).unflag == set()


def test_run_that_owes_again_before_it_is_unflagged_stays_flagged() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    _settle(shard)
    _settle(shard)
    _commit(shard, _key("a"), owes=False)
    _commit(shard, _key("a"), owes=True)
    settlement = _settle(shard)
    assert (settlement.unflag, shard.owing.flagged) == (set(), {_key("a")})


def test_run_that_owes_again_while_it_is_unflagged_holds_the_watermark() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    _settle(shard)
    _settle(shard)
    _commit(shard, _key("a"), owes=False)
    settlement = shard.plan_settlement(_LAG)
    seq = _commit(shard, _key("a"), owes=True)
    shard.settle(settlement)
    assert shard.owing.flagged == set()
    assert _settle(shard).watermark == seq - 1


def test_run_that_is_done_while_it_is_flagged_is_unflagged_next() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    _settle(shard)
    settlement = shard.plan_settlement(_LAG)
    _commit(shard, _key("a"), owes=False, writes_row=True)
    shard.settle(settlement)
    assert _settle(shard).unflag == {_key("a")}


def test_run_whose_row_says_so_needs_no_flag() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True, writes_row=True)
    settlement = _settle(shard)
    assert (settlement.flag, settlement.watermark) == ([], 1)
    assert shard.owing.all() == [_key("a")]


def test_settlement_that_failed_is_planned_again() -> None:
    shard = _shard()
    _commit(shard, _key("a"), owes=True)
    _settle(shard)
    _settle(shard)
    _commit(shard, _key("a"), owes=False)
    failed = shard.plan_settlement(_LAG)
    shard.unsettle(failed)
    assert shard.watermark == 1
    again = _settle(shard)
    assert again.unflag == failed.unflag == {_key("a")}


def test_shard_that_is_not_recovered_keeps_its_watermark() -> None:
    shard = _shard(watermark=7)
    shard.is_recovered = False
    _commit(shard, _key("a"), owes=False)
    assert _settle(shard).watermark == 7


def test_recovered_run_holds_the_watermark_until_it_is_flagged() -> None:
    shard = _shard(watermark=7)
    _commit(shard, _key("b"), owes=True)
    shard.owing.note_recovered(_key("a"), owes=True, is_flagged=False, watermark=7)
    assert shard.plan_settlement(_LAG).watermark == 7
    shard.owing.note_recovered(_key("c"), owes=True, is_flagged=True, watermark=7)
    shard.owing.note_recovered(_key("d"), owes=False, is_flagged=True, watermark=7)
    assert shard.owing.all() == [_key("a"), _key("b"), _key("c")]
    assert shard.owing.stale == {_key("d")}


def test_wake_rewrite_that_changed_meanwhile_is_written_again() -> None:
    shard = _shard()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    shard.wake_rewrites[_key("a")] = WakeRewrite("a", now, None)
    settlement = shard.plan_settlement(_LAG)
    shard.wake_rewrites[_key("a")] = WakeRewrite("a", now, now)
    shard.settle(settlement)
    assert _settle(shard).wake_rewrites == {_key("a"): WakeRewrite("a", now, now)}
    assert shard.wake_rewrites == {}


async def test_settlement_is_founded_when_what_it_saw_is_on_disk() -> None:
    shard = _shard()
    shard.last_ticket = Ticket()
    settlement = shard.plan_settlement(_LAG)
    assert not settlement.is_founded
    shard.last_ticket.resolve(CommitFailedError(1))
    await settlement.wait_founded()
    assert settlement.is_founded


def test_settlement_that_changes_nothing_is_not_worth_writing() -> None:
    shard = _shard()
    assert not shard.plan_settlement(_LAG).is_worth_writing(shard.watermark)
    _commit(shard, _key("a"), owes=False)
    assert shard.plan_settlement(_LAG).is_worth_writing(shard.watermark)


def test_owing_runs_are_always_named_by_log_or_flag() -> None:
    """Whatever happens in whatever order, a crash at any moment loses no run that owes."""
    for seed in range(1000):
        _Life(random.Random(seed)).live()


class _Life:
    """A shard, the disk below it, and what is on the way from one to the other."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.shard = _shard()
        self.queued: deque[tuple[int, RunKey, bool, bool, bool]] = deque()
        self.planned: Settlement | None = None
        self.needed_seq = 0
        self.has_landed = False
        self.watermark = 0
        self.owes: dict[RunKey, bool] = {}
        self.last_row: dict[RunKey, int] = {}
        self.flags: set[AggregateKey] = set()
        # What those that have closed still owe, as memory has it; which the disk has closed.
        self.closing: dict[RunKey, bool] = {}
        self.closed: set[AggregateKey] = set()

    def live(self) -> None:
        steps = [self.queue, self.commit, self.plan, self.land, self.settle, self.fail]
        weights = [4, 4, 2, 2, 2, 1]
        for _ in range(80):
            self.chance.choices(steps, weights)[0]()
            for key, owes in self.owes.items():
                is_named_by_log = self.last_row[key] > self.watermark and key not in self.closed
                is_named = key in self.flags or is_named_by_log
                assert not owes or is_named, key

    def queue(self) -> None:
        key, owes = _key(self.chance.choice("abcd")), self.chance.random() < 0.5
        closes = key in self.closing or self.chance.random() < 0.03
        writes_row = closes or self.chance.random() < 0.2
        if closes:
            # One that has closed comes to owe nothing new.
            owes = self.closing[key] = owes and self.closing.get(key, True)
        seq = self.shard.take_seq()
        self.shard.owing.note(key, owes, seq)
        if writes_row:
            self.shard.note_row_written(key, owes)
        self.queued.append((seq, key, owes, writes_row, closes))

    def commit(self) -> None:
        if self.queued:
            seq, key, owes, writes_row, closes = self.queued.popleft()
            self.owes[key], self.last_row[key] = owes, seq
            if writes_row:
                (self.flags.add if owes else self.flags.discard)(key)
            if closes:
                self.closed.add(key)
            self.shard.committed_seq = seq

    def plan(self) -> None:
        if self.planned is None:
            self.planned, self.has_landed = self.shard.plan_settlement(_LAG), False
            self.needed_seq = self.shard.next_seq - 1

    def land(self) -> None:
        """The settlement gets to the disk; nobody has heard of it yet."""
        is_founded = self.shard.committed_seq >= self.needed_seq
        if self.planned is not None and not self.has_landed and is_founded:
            self.has_landed = True
            self.flags |= set(self.planned.flag) - self.closed
            self.flags -= self.planned.unflag - self.closed
            self.watermark = max(self.watermark, self.planned.watermark)

    def settle(self) -> None:
        if self.planned is not None and self.has_landed:
            self.shard.settle(self.planned)
            self.planned = None

    def fail(self) -> None:
        """Whether it got to the disk or not, the host does not know."""
        if self.planned is not None:
            self.shard.unsettle(self.planned)
            self.planned = None


def test_fault_in_a_plan_takes_no_flag_from_the_shard() -> None:
    shard = _shard()
    shard.owing.flagged.add(_key("a"))
    _commit(shard, _key("a"), owes=False)
    shard.wake_rewrites = cast("Any", None)
    with pytest.raises(TypeError):
        shard.plan_settlement(_LAG)
    shard.wake_rewrites = {}
    assert shard.plan_settlement(_LAG).unflag == {_key("a")}


def test_fault_in_one_shard_takes_no_flag_from_those_before_it() -> None:
    engine = MemoryEngine(ManualClock()).engine
    settler = Settler(engine, cast("Any", None), "host", 1.0, lambda _: None)
    first, bad, last = _shard(), _shard(), _shard()
    for shard in (first, last):
        shard.owing.flagged.add(_key("a"))
        _commit(shard, _key("a"), owes=False)
    bad.wake_rewrites = cast("Any", None)
    planned = settler._plan(deque([first, bad, last]))
    assert [(shard, plan.unflag) for shard, plan in planned] == [
        (first, {_key("a")}),
        (last, {_key("a")}),
    ]
