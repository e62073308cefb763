"""Counters that tell each other, over two hosts: each is told once by each, whoever dies, hangs
or is slow.
"""

import asyncio
import random
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psycopg
import pytest

from aetheris_server.history.aggregates.key import id_of_name
from tests.fault.conftest import NewServer
from tests.support.counter import NAME
from tests.support.counters import (
    NAMESPACE_ID,
    Counters,
    audit_counters,
    counters_of,
    names_in,
)
from tests.support.cutting_proxy import CuttingProxy, grpc_proxy
from tests.support.processes import ServerProcess, running
from tests.support.wait import wait_until

_PROGRAM = ("-m", "tests.support.counter_server")
_SHARDS = 16


@dataclass(slots=True)
class _Expected:
    """What was added, and is to be told: by teller, then by whom it tells, how often."""

    added: dict[str, int] = field(default_factory=dict[str, int])
    told: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])

    def note(self, teller: str, targets: list[str]) -> None:
        self.added[teller] = self.added.get(teller, 0) + 1
        of_teller = self.told.setdefault(teller, {})
        for target in targets:
            of_teller[target] = of_teller.get(target, 0) + 1


def _owners(dsn: str) -> dict[int, str]:
    """The address of the host of each shard that has a live one."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT s.shard_id, h.address FROM shards s JOIN hosts h USING (host_id)"
            " WHERE h.expire_time > now()"
        ).fetchall()
    return {row[0]: row[1] for row in rows}


async def _wait_spread(dsn: str, addresses: set[str]) -> dict[int, str]:
    """Until each of the hosts has shards, and nobody else; who has which."""

    async def spread() -> dict[int, str] | None:
        owners = await asyncio.to_thread(_owners, dsn)
        is_spread = len(owners) == _SHARDS and set(owners.values()) == addresses
        return owners if is_spread else None

    found = await wait_until(spread, 30, "the shards to be spread")
    assert found is not None
    return found


@pytest.fixture
def pair(new_server: NewServer) -> tuple[ServerProcess, ServerProcess]:
    made = [new_server(AETHERIS_HISTORY__SHARD_COUNT=f"{_SHARDS}") for _ in range(2)]
    for server in made:
        server.program = _PROGRAM
    return made[0], made[1]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@asynccontextmanager
async def _behind_proxy(server: ServerProcess) -> AsyncGenerator[tuple[CuttingProxy, str]]:
    """Others reach the server through a proxy."""
    server.address, server.internal_address = "127.0.0.1:0", f"127.0.0.1:{_free_port()}"
    async with grpc_proxy(server.internal_address) as (proxy, address):
        server.environment["AETHERIS_INTERNAL__ADVERTISED_ADDRESS"] = address
        yield proxy, address


async def _wait_told(counters: Counters, expected: _Expected, timeout: float = 40.0) -> None:
    """Until all is told that was to be; exactly that, and by everybody who was to."""

    async def is_told() -> bool:
        for teller, targets in expected.told.items():
            found = await counters.read(teller)
            if found["owed"] or found["told"] != {name: [n, 0] for name, n in targets.items()}:
                return False
        return True

    await wait_until(is_told, timeout, "all to be told")
    requests: dict[str, int] = dict(expected.added)
    for targets in expected.told.values():
        for target, count in targets.items():
            requests[target] = requests.get(target, 0) + count
    for name, count in requests.items():
        found = await counters.read(name)
        assert (found["count"], len(found["requests"])) == (count, count), name
    for teller, targets in expected.told.items():
        prefix = id_of_name(NAME, NAMESPACE_ID, teller) + "/"
        for target, count in targets.items():
            found = await counters.read(target)
            told = [each for each in found["requests"] if each.startswith(prefix)]
            assert len(told) == count, (teller, target)


async def _is_told(counters: Counters, name: str, count: int) -> None:
    """Soon: what goes to a host that answers waits for no other."""

    async def is_told() -> bool:
        return (await counters.read(name)).get("count") == count

    await wait_until(is_told, 5, f"{name} to be told {count} times")


@pytest.mark.parametrize("fault", ["killed", "hung", "slow"])
async def test_host_that_does_not_answer_holds_up_no_other_and_is_told_once(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str, fault: str
) -> None:
    dsn, (one, two) = migrated_postgres_dsn, pair
    async with _behind_proxy(two) as (proxy, two_address), running(one, two):
        owners = await _wait_spread(dsn, {one.internal_address, two_address})
        ours = sorted(each for each, owner in owners.items() if owner == one.internal_address)
        theirs = sorted(owners.keys() - set(ours))
        tellers = names_in(ours, _SHARDS, "teller", 4)
        (live,) = names_in(ours, _SHARDS, "live", 1)
        far = names_in(theirs, _SHARDS, "far", 4)
        addresses = [one.internal_address, two.internal_address]
        async with counters_of(dsn, addresses) as counters:
            expected = _Expected()

            async def add(count: int) -> None:
                for number in range(count):
                    teller = tellers[number % len(tellers)]
                    await counters.add(teller, tell=[live, *far])
                    expected.note(teller, [live, *far])

            await add(8)
            await _wait_told(counters, expected)
            match fault:
                case "killed":
                    await two.kill()
                case "hung":
                    two.send(signal.SIGSTOP)
                case _:
                    proxy.delay = 0.5
            await add(20)
            await _is_told(counters, live, 28)
            if fault == "hung":
                # It is taken for dead, and wakes when others have its shards.
                await _wait_spread(dsn, {one.internal_address})
                two.send(signal.SIGCONT)
            await _wait_told(counters, expected)
    assert await audit_counters(dsn) == len(tellers) + len(far) + 1


async def test_hosts_killed_at_random_under_load_tell_everything_once(
    pair: tuple[ServerProcess, ServerProcess], migrated_postgres_dsn: str
) -> None:
    dsn, (one, two), chance = migrated_postgres_dsn, pair, random.Random(7)
    async with running(one, two):
        await _wait_spread(dsn, {one.internal_address, two.internal_address})
        names = [f"counter-{number}" for number in range(12)]
        addresses = [one.internal_address, two.internal_address]
        async with counters_of(dsn, addresses) as counters:
            expected, is_over = _Expected(), False

            async def load(teller: str) -> None:
                while not is_over:
                    # Each is told by each, and tells.
                    targets = chance.sample([name for name in names if name != teller], 3)
                    await counters.add(teller, tell=targets)
                    expected.note(teller, targets)

            loads = [asyncio.create_task(load(name)) for name in names]
            for victim in (one, two, one, two):
                await asyncio.sleep(chance.uniform(0.2, 1.5))
                await victim.restart()
            is_over = True
            await asyncio.gather(*loads)
            assert sum(expected.added.values()) > 50
            await _wait_told(counters, expected)
    assert await audit_counters(dsn) == len(names)


_POINTS = [
    *("commit.before 1", "commit.after 1", "commit.before 2", "commit.after 2"),
    *("commit.before 3", "commit.after 3"),
    # The first one answered is the test's own.
    *("answer_calls.before 2", "answer_calls.after 2"),
    *("record_outcome.before 1", "record_outcome.after 1"),
]


@pytest.mark.parametrize("point", _POINTS)
async def test_host_killed_at_any_point_of_a_call_makes_it_once(
    new_server: NewServer, migrated_postgres_dsn: str, point: str
) -> None:
    server = new_server(COUNTER_SERVER_DIES=point)
    server.program = _PROGRAM
    async with running(server):
        del server.environment["COUNTER_SERVER_DIES"]
        address = server.internal_address
        async with counters_of(migrated_postgres_dsn, [address]) as counters:
            expected = _Expected()
            adding = asyncio.create_task(counters.add("teller", "once", tell=["told"]))
            assert await server.wait_exit() == -signal.SIGKILL
            await server.start()
            assert await adding == 1
            expected.note("teller", ["told"])
            await _wait_told(counters, expected)
    assert await audit_counters(migrated_postgres_dsn) == 2
