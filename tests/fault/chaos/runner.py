"""The order of it all: load, faults one or two at a time, calm, audit."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final

from aetheris_client import Client
from tests.fault.chaos.audit import audit
from tests.fault.chaos.cluster import Cluster, running_cluster
from tests.fault.chaos.faults import FaultFoundError, Faults
from tests.fault.chaos.load import Book, Load

# What a fault may take, with the start of a server and its recovery.
_FAULT_SECONDS: Final = 90.0
# What runs may take to end when all faults are over.
_CALM_SECONDS: Final = 90.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done.

    Attributes:
        seconds: For which faults come.
        concurrency: Runs at once.
        longest: Seconds that a fault lasts at most.
        pause: Seconds between faults at most.
        cache: The most runs that a server has in memory; 0 for the default.
        idle_seconds: How long the cluster is watched doing nothing, at the end.
        faults: Their names.
    """

    seed: int
    seconds: float
    concurrency: int = 40
    shard_count: int = 8
    cache: int = 0
    longest: float = 10.0
    pause: float = 3.0
    idle_seconds: float = 5.0
    faults: Sequence[str] = field(default_factory=Faults.names)


async def run_chaos(folder: Path, plan: Plan, say: Callable[[str], None]) -> Book:
    """Do it, in an empty folder, and give the book: `faults` has all that was wrong.

    Args:
        folder: Every account can pass through it.
        plan: What to do.
        say: Told how it goes.
    """
    book = Book()
    async with (
        running_cluster(folder, plan.shard_count, plan.cache) as cluster,
        _clients(cluster) as clients,
    ):
        end_time = time.monotonic() + plan.seconds
        load = Load(clients, book, end_time, end_time + _FAULT_SECONDS + _CALM_SECONDS)
        loading = asyncio.create_task(load.run(plan.seed, plan.concurrency))
        try:
            await _harm(cluster, plan, book, end_time, say)
            say(f"calm, {book.done.total()} runs done")
            await loading
        finally:
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
        say(f"audit of {len(book.runs)} runs")
        book.faults += await audit(cluster, book, plan.idle_seconds)
    return book


@asynccontextmanager
async def _clients(cluster: Cluster) -> AsyncGenerator[list[Client]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await Client.connect(server.address))
            for server in cluster.servers
        ]


async def _harm(
    cluster: Cluster, plan: Plan, book: Book, end_time: float, say: Callable[[str], None]
) -> None:
    dice = Random(plan.seed)
    try:
        while time.monotonic() < end_time:
            names = _choose(plan.faults, dice)
            # Dice of their own: two at once would draw from common ones in an order of chance.
            faults = [
                (name, Faults(cluster, Random(dice.random()), plan.longest)) for name in names
            ]
            say(f"{' and '.join(names)}, {book.done.total()} runs done")
            try:
                async with asyncio.timeout(_FAULT_SECONDS):
                    await asyncio.gather(*(fault.do(name) for name, fault in faults))
            except FaultFoundError as error:
                book.faults.append(f"{' and '.join(names)}: {error}")
            await asyncio.sleep(dice.random() * plan.pause)
    finally:
        cluster.mend()


def _choose(names: Sequence[str], dice: Random) -> list[str]:
    """One fault, or two that go together."""
    first = dice.choice(names)
    others = [name for name in names if Faults.are_compatible(first, name)]
    return [first, dice.choice(others)] if others and dice.random() < 0.6 else [first]
