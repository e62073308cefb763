"""The lanes in which calls go to the hosts of their targets."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from aetheris.server.v1.history_service_pb2 import (
    AggregateCall,
    AggregateName,
    CallOutcome,
    CallRefused,
    CallRetry,
)
from aetheris_server.clock import Clock, SystemClock
from aetheris_server.errors import UnavailableError
from aetheris_server.history.aggregates.obligation import MAX_CALL_BYTES
from aetheris_server.history.obligations import lane
from aetheris_server.history.obligations.calls import CallCarrier
from aetheris_server.history.obligations.lanes import Lanes
from aetheris_server.ids import shard_of
from tests.support.clock import ManualClock
from tests.support.wait import wait_until

_SHARDS = 64
_CALLER = "caller"


def _shard(name: str) -> int:
    return shard_of("", name, _SHARDS)


def _advance(clock: ManualClock, sender: Lanes[AggregateCall]) -> None:
    """Let a second pass, which the lanes would else wait for by the real clock."""
    clock.advance(1)
    sender._wake.set()


class _Hosts:
    """Each target is at a host of its own, `host-SHARD`, until it moves.

    Attributes:
        sent: Request ids, in the order in which they came.
        recorded: What was recorded of each.
        hung: Targets whose host never answers.
        dead: Targets whose host is not there.
        max_taken: How many calls arrive together before they take too long.
        retries: How often more a call is answered by `retry`, by request id.
        unrecorded: How often more the outcome of a call cannot be recorded.
        held: The shards that this host has.
    """

    def __init__(self) -> None:
        self.moved: dict[int, str] = {}
        self.hung: set[str] = set()
        self.dead: set[str] = set()
        self.sent: list[str] = []
        self.batches: list[int] = []
        self.recorded: dict[str, str | None] = {}
        self.max_taken = 1_000
        self.retries: dict[str, int] = {}
        self.unrecorded: dict[str, int] = {}
        self.held = {_shard(_CALLER)}

    def locate(self, shard_id: int) -> str:
        return self.moved.get(shard_id, f"host-{shard_id}")

    async def call_aggregates(self, calls: Sequence[AggregateCall]) -> Sequence[CallOutcome]:
        self.sent += [call.request_id for call in calls]
        self.batches.append(len(calls))
        hosts = {self.locate(_shard(call.target.name)) for call in calls}
        assert len(hosts) == 1, "one call is for one host"
        if any(call.target.name in self.hung for call in calls):
            await asyncio.get_running_loop().create_future()
        if len(calls) > self.max_taken or any(call.target.name in self.dead for call in calls):
            raise UnavailableError("gone")
        return [self._answer(call) for call in calls]

    def _answer(self, call: AggregateCall) -> CallOutcome:
        left = self.retries.get(call.request_id, 0)
        if left:
            self.retries[call.request_id] = left - 1
            return CallOutcome(retry=CallRetry())
        if call.payload == b"refuse":
            return CallOutcome(refused=CallRefused(message="no"))
        return CallOutcome(answer=b"done")

    async def record(self, call: AggregateCall, outcome: CallOutcome) -> bool:
        if outcome.HasField("retry"):
            return False
        left = self.unrecorded.get(call.request_id, 0)
        if left:
            self.unrecorded[call.request_id] = left - 1
            return False
        self.recorded[call.request_id] = outcome.WhichOneof("outcome")
        return True


@asynccontextmanager
async def _sending(
    hosts: _Hosts, clock: Clock | None = None
) -> AsyncGenerator[Lanes[AggregateCall]]:
    carrier = CallCarrier(
        hosts, hosts.locate, _SHARDS, lambda shard_id: shard_id in hosts.held, hosts.record
    )
    sender = Lanes(carrier, clock or SystemClock())
    running = asyncio.create_task(sender.run())
    try:
        yield sender
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def _calls(target: str, names: Iterable[object], payload: bytes = b"") -> list[AggregateCall]:
    return [
        AggregateCall(
            request_id=f"{name}",
            caller=AggregateName(name=_CALLER),
            target=AggregateName(name=target),
            payload=payload,
        )
        for name in names
    ]


@pytest.mark.parametrize("fault", ["hung", "dead"])
async def test_host_that_does_not_answer_holds_up_no_other(fault: str) -> None:
    hosts = _Hosts()
    getattr(hosts, fault).add("bad")
    async with _sending(hosts) as sender:
        for number in range(40):
            sender.offer(_calls("bad", [f"lost-{number}"]))
            await asyncio.sleep(0)
        sender.offer(_calls("good", ["a", "b"]))
        await wait_until(lambda: hosts.recorded == {"a": "answer", "b": "answer"}, 2)


async def test_only_what_is_not_done_is_sent_again() -> None:
    hosts = _Hosts()
    hosts.retries = {"b": 2}
    hosts.unrecorded = {"c": 1}
    async with _sending(hosts) as sender:
        calls = [*_calls("t", "abc"), *_calls("t", "d", b"refuse")]
        sender.offer(calls)
        outcomes = {"a": "answer", "b": "answer", "c": "answer", "d": "refused"}
        await wait_until(lambda: hosts.recorded == outcomes, 5)
    counts = {name: hosts.sent.count(name) for name in "abcd"}
    assert counts == {"a": 1, "b": 3, "c": 2, "d": 1}


async def test_calls_that_several_batches_left_are_sent_again_together() -> None:
    hosts, clock = _Hosts(), ManualClock()
    hosts.dead.add("bad")
    async with _sending(hosts, clock) as sender:
        for number in range(10):
            sender.offer(_calls("bad", [number]))
            await wait_until(lambda number=number: len(hosts.sent) == number + 1)
        hosts.dead.clear()

        def are_recorded() -> bool:
            _advance(clock, sender)
            return len(hosts.recorded) == 10

        await wait_until(are_recorded)
    # The last one may not have come back when the first were due.
    assert len(hosts.batches) <= 12


async def test_host_that_takes_few_calls_at_once_gets_few() -> None:
    hosts, clock = _Hosts(), ManualClock()
    hosts.max_taken = 30
    async with _sending(hosts, clock) as sender:
        sender.offer(_calls("slow", range(400)))

        def are_recorded() -> bool:
            _advance(clock, sender)
            return len(hosts.recorded) == 400

        await wait_until(are_recorded)


async def test_call_under_way_is_not_taken_in_again_until_it_is_done() -> None:
    hosts = _Hosts()
    hosts.dead.add("t")
    async with _sending(hosts) as sender:
        for _ in range(3):
            sender.offer(_calls("t", "a"))
        await wait_until(lambda: hosts.sent)
        sender.offer(_calls("t", "a"))
        hosts.dead.clear()
        await wait_until(lambda: hosts.recorded, 5)
        await wait_until(lambda: not sender._lanes)
        assert set(hosts.batches) == {1}
        before = len(hosts.sent)
        sender.offer(_calls("t", "a"))
        await wait_until(lambda: len(hosts.sent) == before + 1, 2)


async def test_calls_follow_their_target_when_it_moves() -> None:
    hosts = _Hosts()
    hosts.dead.add("t")
    async with _sending(hosts) as sender:
        sender.offer(_calls("t", range(5)))
        await wait_until(lambda: hosts.sent)
        hosts.moved[_shard("t")] = "other"
        hosts.dead.clear()
        await wait_until(lambda: len(hosts.recorded) == 5, 5)


async def test_calls_of_a_shard_that_is_another_host_s_now_are_left_to_it() -> None:
    hosts = _Hosts()
    hosts.dead.add("t")
    async with _sending(hosts) as sender:
        sender.offer(_calls("t", "a"))
        await wait_until(lambda: hosts.sent)
        hosts.held.clear()
        await wait_until(lambda: not sender._later and not sender._lanes, 5)
        # It may come back.
        hosts.held.add(_shard(_CALLER))
        hosts.dead.clear()
        sender.offer(_calls("t", "a"))
        await wait_until(lambda: hosts.recorded == {"a": "answer"}, 5)


async def test_calls_beyond_a_lane_s_bound_are_derived_again_from_their_caller_s_shard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "LANE_MAX_COUNT", 10)
    hosts = _Hosts()
    hosts.dead.add("bad")
    async with _sending(hosts) as sender:
        for number in range(30):
            sender.offer(_calls("bad", [number]))
        skipped = asyncio.create_task(sender.wait_skipped())
        sender.offer(_calls("good", "a"))
        await wait_until(lambda: hosts.recorded == {"a": "answer"}, 2)
        assert not skipped.done()
        hosts.dead.clear()
        assert await asyncio.wait_for(skipped, 5) == {_shard(_CALLER)}
        await wait_until(lambda: len(hosts.recorded) == 11, 5)


async def test_batch_of_calls_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_BATCH_BYTES", 3_000)
    hosts = _Hosts()
    async with _sending(hosts) as sender:
        sender.offer(_calls("t", range(10), b"x" * 1_000))
        await wait_until(lambda: len(hosts.recorded) == 10)
    assert max(hosts.batches) == 2


async def test_call_that_no_message_can_take_is_refused_and_holds_up_no_other() -> None:
    hosts = _Hosts()
    async with _sending(hosts) as sender:
        sender.offer(_calls("b", ["small"]))
        sender.offer(_calls("b", ["large"], bytes(MAX_CALL_BYTES)))
        sender.offer(_calls("b", ["other"]))
        await wait_until(lambda: len(hosts.recorded) == 3)
    assert hosts.recorded == {"small": "answer", "large": "refused", "other": "answer"}
    assert sorted(hosts.sent) == ["other", "small"]
