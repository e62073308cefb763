"""Calls that one aggregate owes another: made once, whatever is lost in between."""

import asyncio
import json
from typing import Any, cast

import pytest

from aetheris.server.v1.history_service_pb2 import AggregateCall, AggregateName, CallOutcome
from aetheris_server.history import host as history_host_module
from aetheris_server.history.calls.recording import record_outcome
from aetheris_server.history.engine import finding
from aetheris_server.history.recovery.recovery import offer_again
from aetheris_server.history.recovery.sweep import Sweep
from tests.support.clock import ManualClock
from tests.support.counter import (
    READ,
    Counter,
    counter_key,
    counter_name,
    counters_served,
    to_payload,
)
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench
from tests.support.wait import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("_counters")]


@pytest.fixture
def _counters() -> Any:
    with counters_served():
        yield


def _call(name: str, request_id: str, payload: bytes = b"") -> AggregateCall:
    caller = AggregateName(kind="test", namespace_id=NAMESPACE_ID, name="test", id="test")
    return AggregateCall(
        request_id=request_id,
        caller=caller,
        target=counter_name(NAMESPACE_ID, name),
        payload=payload or to_payload(1),
    )


async def _ask(bench: HistoryBench, *calls: AggregateCall) -> list[CallOutcome]:
    return list(await bench.host.service.call_aggregates(calls))


async def _add(bench: HistoryBench, name: str, request_id: str, **asked: Any) -> None:
    (outcome,) = await _ask(bench, _call(name, request_id, to_payload(1, **asked)))
    assert outcome.HasField("answer"), outcome


async def _read(bench: HistoryBench, name: str) -> dict[str, Any]:
    (outcome,) = await _ask(bench, _call(name, "read", READ))
    return json.loads(outcome.answer)


async def _wait_told(bench: HistoryBench, teller: str, told: dict[str, list[int]]) -> None:
    async def is_told() -> bool:
        found = await _read(bench, teller)
        return found["told"] == told and not found["owed"]

    await wait_until(is_told, what=f"{teller} to have told {told}")


async def _loaded(bench: HistoryBench, name: str) -> Counter:
    return cast("Counter", await bench.engine.load(counter_key(NAMESPACE_ID, name)))


async def test_call_comes_to_a_record_there_and_one_here(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await _add(bench, "a", "1", tell=["b", "c"])
        await _wait_told(bench, "a", {"b": [1, 0], "c": [1, 0]})
        a = await _loaded(bench, "a")
        number = 1_000
        assert (await _read(bench, "b"))["requests"] == [f"{a.key.id}/{number}"]
        assert (await _read(bench, "c"))["requests"] == [f"{a.key.id}/{number + 1}"]
        # Nothing but the records: what is done within moments is never flagged.
        assert await bench.db.fetch("SELECT count(*) FROM aggregates WHERE owes") == [(0,)]
        assert a.seq == 3


async def _before_the_call(bench: HistoryBench, _: pytest.MonkeyPatch) -> None:
    bench.calls.gate.clear()
    await _add(bench, "a", "1", tell=["b"])
    await wait_until(lambda: bench.calls.sent)
    assert await _read(bench, "b") == {}


async def _after_the_effect(bench: HistoryBench, _: pytest.MonkeyPatch) -> None:
    bench.calls.loses_answers = True
    await _add(bench, "a", "1", tell=["b"])
    await wait_until(lambda: bench.engine.cache.peek(counter_key(NAMESPACE_ID, "b").id))
    assert (await _read(bench, "b"))["count"] == 1


async def _after_the_answer(bench: HistoryBench, patch: pytest.MonkeyPatch) -> None:
    answered = asyncio.Event()

    async def record_outcome(*_: object) -> bool:
        answered.set()
        await asyncio.get_running_loop().create_future()
        return False

    patch.setattr(history_host_module, "record_outcome", record_outcome)
    await _add(bench, "a", "1", tell=["b"])
    await asyncio.wait_for(answered.wait(), 10)


@pytest.mark.parametrize("interval", [1, 1000], ids=["from-snapshot", "from-log"])
@pytest.mark.parametrize("lose", [_before_the_call, _after_the_effect, _after_the_answer])
async def test_host_that_is_lost_on_the_way_leaves_the_call_to_the_next(
    migrated_postgres_dsn: str, lose: Any, interval: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"snapshot_interval_records": interval}
    async with history_bench(migrated_postgres_dsn, **settings) as bench:
        with monkeypatch.context() as patch:
            await lose(bench, patch)
        bench.calls.gate = asyncio.Event()
    async with history_bench(migrated_postgres_dsn, **settings) as bench:
        await _wait_told(bench, "a", {"b": [1, 0]})
        assert (await _read(bench, "b"))["count"] == 1
        assert len(bench.calls.sent) == 1


async def test_aggregate_that_has_closed_still_owes_and_is_found_by_its_row(
    migrated_postgres_dsn: str,
) -> None:
    clock = ManualClock()
    async with history_bench(migrated_postgres_dsn, clock) as bench:
        bench.calls.gate.clear()
        await _add(bench, "a", "1", tell=["b"], seconds=60)
        bench.advance(60)
        a = await _loaded(bench, "a")
        await a.wait_committed()
        assert not a.is_open
        row = await bench.db.fetch("SELECT owes, close_time IS NULL, name FROM aggregates")
        assert row == [(True, False, "a")]
    async with history_bench(migrated_postgres_dsn, clock) as bench:
        await _wait_told(bench, "a", {"b": [1, 0]})
        rows = await bench.db.fetch("SELECT owes, close_time IS NULL, name FROM aggregates")
        assert sorted(rows) == [(False, False, "a"), (False, True, "b")]


async def test_refusal_is_noted_and_the_call_not_made_again(migrated_postgres_dsn: str) -> None:
    clock = ManualClock()
    async with history_bench(migrated_postgres_dsn, clock) as bench:
        await _add(bench, "b", "1", seconds=60)
        bench.advance(60)
        await _add(bench, "a", "1", tell=["b"])
        await _wait_told(bench, "a", {"b": [0, 1]})
        assert len(bench.calls.sent) == 1
        assert (await _read(bench, "b"))["count"] == 1


async def test_call_under_way_is_not_sent_beside_itself(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn, watermark_interval=0.02) as bench:
        bench.calls.gate.clear()
        await _add(bench, "a", "1", tell=["b"])
        shard = bench.engine.find_shard(NAMESPACE_ID, "a")
        await wait_until(lambda: shard.owing.flagged)
        await Sweep(bench.engine, 60.0).sweep()
        await offer_again(bench.engine, [shard])
        bench.engine.committer.fail_shard(shard.owner)
        await wait_until(lambda: shard.shard_id in bench.engine.shards)
        await wait_until(lambda: bench.engine.shards[shard.shard_id].is_recovered)
        await bench.engine.offer_obligations(await _loaded(bench, "a"))
        assert len(bench.calls.sent) == 1
        bench.calls.gate.set()
        await _wait_told(bench, "a", {"b": [1, 0]})
        assert len(bench.calls.sent) == 1


async def test_call_whose_caller_is_away_for_a_moment_is_not_forgotten(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        shards = bench.engine.shards
        shard = bench.engine.find_shard(NAMESPACE_ID, "a")

        def is_back() -> bool:
            taken = shards.get(shard.shard_id)
            return taken is not None and taken is not shard and taken.is_recovered

        async def record_late(engine: Any, call: AggregateCall, outcome: CallOutcome) -> bool:
            if shards.get(shard.shard_id) is shard:
                # What comes of the first finds no caller. It leaves the lane with the second, by
                # when the caller is back and has offered it again.
                engine.committer.fail_shard(shard.owner)
            else:
                await wait_until(is_back)
            return await record_outcome(engine, call, outcome)

        monkeypatch.setattr(history_host_module, "record_outcome", record_late)
        await _add(bench, "a", "1", tell=["b", "c"])
        await wait_until(is_back)

        async def is_told() -> bool:
            # Time for what is to be sent again.
            bench.advance(1)
            return (await _read(bench, "a"))["told"] == {"b": [1, 0], "c": [1, 0]}

        await wait_until(is_told, what="both to be told")


async def test_call_that_is_not_on_disk_yet_is_offered_when_it_is(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await _add(bench, "a", "1")
        a = await _loaded(bench, "a")
        writing = asyncio.Event()
        commit = bench.engine.writer.commit

        async def commit_late(batch: Any) -> None:
            await writing.wait()
            await commit(batch)

        bench.engine.writer.commit = commit_late
        adding = asyncio.create_task(_add(bench, "a", "2", tell=["b"]))
        await wait_until(lambda: a.owed)
        offering = asyncio.create_task(bench.engine.offer_obligations(a))
        await asyncio.wait([offering], timeout=0.1)
        assert bench.calls.sent == []
        writing.set()
        await asyncio.gather(adding, offering)
        await _wait_told(bench, "a", {"b": [1, 0]})


async def test_call_that_comes_again_is_answered_as_it_was(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        names = [f"{number % 10}" for number in range(50)]
        answers = await asyncio.gather(*(_ask(bench, _call("b", name)) for name in names))
        by_name: dict[str, set[bytes]] = {}
        for name, (outcome,) in zip(names, answers, strict=True):
            by_name.setdefault(name, set()).add(outcome.answer)
        assert all(len(found) == 1 for found in by_name.values())
        assert (await _read(bench, "b"))["count"] == 10
    async with history_bench(migrated_postgres_dsn) as bench:
        again = await _ask(bench, *(_call("b", name) for name in by_name))
        assert [{outcome.answer} for outcome in again] == list(by_name.values())
        assert (await _read(bench, "b"))["count"] == 10


async def test_call_at_fault_spoils_no_other(migrated_postgres_dsn: str) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        unknown, nameless, to_run, bad = (_call("b", f"{number}") for number in range(4))
        unknown.target.kind = "unheard of"
        nameless.target.name = "b\0"
        to_run.target.kind = "run"
        bad.payload = b"no json"
        outcomes = await _ask(bench, unknown, nameless, _call("b", "good"), to_run, bad)
        kinds = [outcome.WhichOneof("outcome") for outcome in outcomes]
        assert kinds == ["retry", "refused", "answer", "refused", "retry"]
        assert (await _read(bench, "b"))["count"] == 1


@pytest.mark.parametrize("is_loaded", [True, False], ids=["in-memory", "on-disk"])
@pytest.mark.parametrize("is_same_shard", [True, False], ids=["same-shard", "other-shard"])
async def test_call_by_the_id_of_another_namespace_s_is_refused(
    migrated_postgres_dsn: str, is_loaded: bool, is_same_shard: bool
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        other = _call("secret", "1", to_payload(41))
        other.target.namespace_id = "22222222-2222-4222-8222-222222222222"
        read = _call("", "2", READ)
        read.target.CopyFrom(other.target)
        await _ask(bench, other)
        (before,) = await _ask(bench, read)
        theirs = counter_key(other.target.namespace_id, "secret")
        shard = bench.engine.find_shard(theirs.namespace_id, theirs.name)
        name = next(
            name
            for name in map(str, range(100))
            if (bench.engine.find_shard(NAMESPACE_ID, name) is shard) == is_same_shard
        )
        if not is_loaded:
            bench.engine.cache.drop(await bench.engine.load(theirs))
        for payload in (READ, to_payload(1)):
            call = _call(name, "3", payload)
            call.target.id = theirs.id
            (outcome,) = await _ask(bench, call)
            assert outcome.HasField("refused"), outcome
        assert await _ask(bench, read) == [before]
        assert bench.engine.shards[shard.shard_id] is shard


@pytest.mark.parametrize("id_", ["no-uuid", counter_key(NAMESPACE_ID, "b").id.upper()])
async def test_call_by_an_id_that_nothing_has_is_refused(
    migrated_postgres_dsn: str, id_: str
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await _add(bench, "b", "1")
        call = _call("b", "2")
        call.target.id = id_
        assert [o.WhichOneof("outcome") for o in await _ask(bench, call)] == ["refused"]
        assert (await _read(bench, "b"))["count"] == 1


async def test_target_that_was_not_there_before_its_shard_was_lost_is_looked_for_anew(
    migrated_postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        shards, load_one = bench.engine.shards, finding.load_one
        shard = bench.engine.find_shard(NAMESPACE_ID, "b")
        found: list[Any] = []

        async def load_slowly(*wanted: Any) -> Any:
            found.append(await load_one(*wanted))
            if len(found) == 1:
                bench.engine.committer.fail_shard(shard.owner)
                await wait_until(lambda: shard.shard_id in shards)
            return found[-1]

        monkeypatch.setattr(finding, "load_one", load_slowly)
        await _add(bench, "b", "1")
        assert found == [None, None]


async def test_call_for_a_shard_of_another_host_is_to_be_made_again(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        lost = bench.engine.find_shard(NAMESPACE_ID, "b").shard_id
        other = next(
            name
            for name in map(str, range(100))
            if bench.engine.find_shard(NAMESPACE_ID, name).shard_id != lost
        )
        bench.engine.release_shard(lost)
        outcomes = await _ask(bench, _call("b", "1"), _call(other, "1"))
        assert [outcome.WhichOneof("outcome") for outcome in outcomes] == ["retry", "answer"]
