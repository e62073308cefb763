"""What a host does with the shards that it has just taken: offers again everything they owe.

The log behind the watermark and the flagged rows name every aggregate that owes something. What
each owes follows from its state. Everything is offered again; whoever receives it is idempotent.
Aggregates are loaded a page at a time, in a few statements each, and no faster than what they owe
is taken.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence

from aetheris_server.errors import (
    AggregateNotFoundError,
    RunSetAsideError,
    RunUnreadableError,
    UnavailableError,
)
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.obligations.dispatcher import AnyLanes
from aetheris_server.history.shard import Shard
from aetheris_server.loops import is_cancelled, pause, run_loops
from aetheris_server.storage.finding import Found, load_open_since, load_owing
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_RECOVERED = counter("recovered_runs", "Aggregates looked at because their shard was taken.")

_FAILED = counter("failed_recoveries", "Aggregates that could not be recovered because of a fault.")

_PAGE_SIZE = 200
_RETRY_INTERVAL = 0.5

_Owing = tuple[Shard, AggregateKey]
_Work = Callable[[Shard, AggregateKey, Aggregate | None], Awaitable[None]]


class Recovery:
    """Recovers the shards of one engine. `run` belongs to one asyncio task."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._has_taken = asyncio.Event()
        # The owners of the shards that are being recovered.
        self._under_way: set[tuple[int, int]] = set()

    def wake(self) -> None:
        """Shards have been taken."""
        self._has_taken.set()

    async def run(self) -> None:
        """Recover the shards that are taken until cancelled.

        Those that were taken together are recovered together; those taken meanwhile do not wait.
        """
        async with asyncio.TaskGroup() as rounds:
            while not is_cancelled():
                await self._has_taken.wait()
                self._has_taken.clear()
                shards = [
                    shard
                    for shard in self._engine.shards.values()
                    if not shard.is_recovered and shard.owner not in self._under_way
                ]
                if shards:
                    self._under_way |= {shard.owner for shard in shards}
                    rounds.create_task(self._recover(shards))
            # Or the group would wait for them.
            raise asyncio.CancelledError

    async def _recover(self, shards: Sequence[Shard]) -> None:
        """Recover some shards, again until they are or are lost; never raises."""
        try:
            while not is_cancelled():
                left = [
                    shard
                    for shard in shards
                    if _is_ours(self._engine, shard) and not shard.is_recovered
                ]
                if not left:
                    return
                try:
                    await recover_shards(self._engine, left)
                except (UnavailableError, TimeoutError) as error:
                    _log.error("shards could not be recovered; trying again", error=str(error))
                except Exception:  # noqa: BLE001 - logged whole
                    _log.exception("shards could not be recovered; trying again")
                else:
                    continue
                await pause(_RETRY_INTERVAL)
        finally:
            self._under_way -= {shard.owner for shard in shards}


async def recover_shards(engine: Engine, shards: Sequence[Shard]) -> None:
    """Offer again what some shards owe. Ends early for a shard that is lost meanwhile.

    A shard counts as recovered as soon as its own aggregates are done, whatever becomes of others.

    Raises:
        UnavailableError: Postgres does not answer; call again for those that are not recovered.
    """
    by_id = {shard.shard_id: shard for shard in shards}

    def to_key(found: Found) -> tuple[AggregateKey, int]:
        shard_id, *names = found
        return engine.kinds.key(*names), shard_id

    flagged = dict(map(to_key, await load_owing(engine.db, list(by_id))))
    named = map(
        to_key,
        await load_open_since(engine.db, {shard.shard_id: shard.watermark for shard in shards}),
    )
    owing: list[_Owing] = [(by_id[shard_id], key) for key, shard_id in flagged.items()]
    owing += [(by_id[shard_id], key) for key, shard_id in named if key not in flagged]

    # In order of shards, so that one is done after the other.
    owing.sort(key=lambda each: each[0].shard_id)
    left = Counter(shard.shard_id for shard, _ in owing)
    for shard in shards:
        shard.is_recovered = not left[shard.shard_id]

    async def recover(shard: Shard, key: AggregateKey, aggregate: Aggregate | None) -> None:
        # One at fault still owes.
        shard.owing.note_recovered(
            key,
            owes=aggregate is None or aggregate.owes(),
            is_flagged=key in flagged,
            watermark=shard.watermark,
        )
        if aggregate is not None:
            _RECOVERED.inc()
            await engine.offer_obligations(aggregate)

    def note_done(shard: Shard) -> None:
        left[shard.shard_id] -= 1
        shard.is_recovered = not left[shard.shard_id]

    await _for_each(engine, owing, recover, note_done)
    _log.info("shards recovered", shards=len(shards), aggregates=len(owing))


async def offer_again(engine: Engine, shards: Collection[Shard]) -> None:
    """Offer again what every aggregate of some shards owes, as far as nobody has it.

    Raises:
        UnavailableError: Some aggregates could not be loaded; call again.
    """
    owing = [(shard, key) for shard in shards for key in shard.owing.all()]

    async def offer(shard: Shard, key: AggregateKey, aggregate: Aggregate | None) -> None:
        if aggregate is not None:
            await engine.offer_obligations(aggregate)

    await _for_each(engine, owing, offer)


async def offer_all_again(engine: Engine) -> None:
    """The backlog is lost: offer again what every aggregate of every shard of this host owes.

    Raises:
        UnavailableError: Some aggregates could not be loaded; call again.
    """
    # Whether this is a loss, or the first start, is said by matching, which found it out.
    _log.info("the backlog holds nothing; offering again all that is owed")
    await offer_again(engine, list(engine.shards.values()))


async def run_catching_up(engine: Engine) -> None:
    """Offer again, once there is room, what the dispatcher had no room for; until cancelled."""
    await run_loops(*(_catch_up(engine, lanes) for lanes in engine.dispatcher.all_lanes))


async def _catch_up(engine: Engine, lanes: AnyLanes) -> None:
    while not is_cancelled():
        shard_ids = await lanes.wait_skipped()
        shards = [engine.shards[shard_id] for shard_id in shard_ids if shard_id in engine.shards]
        try:
            await offer_again(engine, shards)
        except UnavailableError as error:
            _log.warning("what is owed could not be offered; trying again", error=str(error))
        except Exception:  # noqa: BLE001 - logged whole
            _log.exception("what is owed could not be offered; trying again")
        else:
            continue
        lanes.skip(shard_ids)
        # There is room: without this it would be tried again at once, for as long as it fails.
        await pause(_RETRY_INTERVAL)


async def _for_each(
    engine: Engine,
    owing: Sequence[_Owing],
    work: _Work,
    on_done: Callable[[Shard], None] = lambda _: None,
) -> None:
    """Do what is to be done for aggregates, with None for one at fault; call `on_done` after each
    that need not be tried again.

    What is lost meanwhile, or was never there, is passed over.

    Raises:
        UnavailableError: Some could not be loaded, and their shard is still this host's.
    """
    problem: UnavailableError | None = None
    for begin in range(0, len(owing), _PAGE_SIZE):
        page = owing[begin : begin + _PAGE_SIZE]
        await engine.preload([key for shard, key in page if _is_ours(engine, shard)])
        for shard, key in page:
            if not _is_ours(engine, shard):
                continue
            try:
                await engine.dispatcher.wait_room()
                aggregate = await _try_load(engine, key)
            except AggregateNotFoundError:
                _log.error("an aggregate that owes tasks is not there", kind=key.kind, id=key.id)
                on_done(shard)
                continue
            except UnavailableError as error:
                # A lease that has run out is renewed in a moment. What a shard owes that is gone,
                # its next owner offers.
                if _is_ours(engine, shard):
                    problem = error
                continue
            if _is_ours(engine, shard):
                await _do(work, shard, key, aggregate)
                on_done(shard)
    if problem is not None:
        raise problem


async def _do(work: _Work, shard: Shard, key: AggregateKey, aggregate: Aggregate | None) -> None:
    try:
        await work(shard, key, aggregate)
    except UnavailableError as error:
        # What it follows from is not on disk; the shard is taken anew, and looked at again.
        _log.info("what an aggregate owes is not offered", id=key.id, error=str(error))
    except Exception:  # noqa: BLE001 - logged whole
        # One aggregate at fault must not keep the others waiting.
        _log.exception("what an aggregate owes could not be offered", kind=key.kind, id=key.id)
        _FAILED.inc()


def _is_ours(engine: Engine, shard: Shard) -> bool:
    return engine.shards.get(shard.shard_id) is shard


async def _try_load(engine: Engine, key: AggregateKey) -> Aggregate | None:
    """The aggregate; None if there is a fault in it, which must not keep the others waiting."""
    try:
        return await engine.load(key)
    except (RunSetAsideError, RunUnreadableError) as error:
        _log.error(
            "an aggregate could not be recovered", kind=key.kind, id=key.id, error=str(error)
        )
    except (UnavailableError, AggregateNotFoundError):
        raise
    except Exception:  # noqa: BLE001 - logged whole
        _log.exception("an aggregate could not be recovered", kind=key.kind, id=key.id)
    _FAILED.inc()
    return None
