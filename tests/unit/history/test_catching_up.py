"""What found no room is offered again: at once where that works, in a while where it does not."""

import asyncio

from aetheris_server.history.recovery.recovery import run_catching_up
from tests.support.clock import ManualClock
from tests.support.memory_engine import MemoryEngine


async def test_catching_up_that_fails_is_not_tried_again_at_once(clock: ManualClock) -> None:
    bench = MemoryEngine(clock)
    bench.start("a")
    engine = bench.engine
    # As while Postgres does not answer: the shard is there, and nothing of it can be loaded.
    engine._table._is_leased = lambda: False
    tries = 0
    lanes = engine.dispatcher.tasks
    wait_skipped = lanes.wait_skipped

    async def count() -> set[int]:
        nonlocal tries
        tries += 1
        if tries > 10:
            raise asyncio.CancelledError
        return await wait_skipped()

    lanes.wait_skipped = count
    lanes.skip([0])
    catching_up = asyncio.create_task(run_catching_up(engine))
    done, _ = await asyncio.wait([catching_up], timeout=0.2)
    catching_up.cancel()
    await asyncio.wait([catching_up])
    assert not done
    assert tries == 1
