"""What a host does with the shards that it has just taken: everything they owe, again.

The log behind the watermark and the flagged rows name every run that owes tasks. What each owes
follows from its state. Everything is offered again; whoever receives it is idempotent.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from aetheris_server.errors import UnavailableError, WorkflowNotFoundError
from aetheris_server.history.engine import Engine
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.obligations import owes_tasks
from aetheris_server.history.state.run import RunKey
from aetheris_server.storage.executions import load_owing
from aetheris_server.storage.log import load_open_runs_since
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_RECOVERED = counter("recovered_runs", "Runs looked at because their shard was taken.")

_FAILED = counter("failed_recoveries", "Runs that could not be recovered because of a fault.")

_MAX_CONCURRENT_LOADS = 8

_Work = Callable[[], Awaitable[None]]


async def recover_shards(engine: Engine, shards: Sequence[Shard]) -> None:
    """Offer again what the runs of some shards owe. Ends early for a shard that is lost meanwhile.

    Raises:
        UnavailableError: Postgres does not answer; call again.
    """
    by_id = {shard.shard_id: shard for shard in shards}
    flagged = {
        (shard_id, run_id): RunKey(namespace_id, workflow_id, run_id)
        for shard_id, namespace_id, workflow_id, run_id in await load_owing(engine.db, list(by_id))
    }
    named = await load_open_runs_since(
        engine.db, {shard.shard_id: shard.watermark for shard in shards}
    )
    keys: list[tuple[Shard, RunKey, bool]] = [
        (by_id[shard_id], key, True) for (shard_id, _), key in flagged.items()
    ]
    keys += [
        (by_id[shard_id], RunKey(namespace_id, workflow_id, run_id), False)
        for shard_id, namespace_id, workflow_id, run_id in named
        if (shard_id, run_id) not in flagged
    ]

    async def recover(shard: Shard, key: RunKey, is_flagged: bool) -> None:
        try:
            await _recover_run(engine, shard, key, is_flagged)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - logged whole
            # One run at fault must not keep the others from being recovered. It still owes.
            _log.exception("a run could not be recovered", run_id=key.run_id)
            _FAILED.inc()
            shard.note_recovered(key, owes=True, is_flagged=is_flagged)

    await _for_each(
        engine, [(shard, partial(recover, shard, key, flag)) for shard, key, flag in keys]
    )
    for shard in shards:
        shard.is_recovered = True
    _log.info("shards recovered", shards=len(shards), runs=len(keys))


async def _for_each(engine: Engine, works: Sequence[tuple[Shard, _Work]]) -> None:
    """Do what is to be done for runs of shards, several at a time.

    Raises:
        UnavailableError: Some of it could not be done, and the shard is still this host's.
    """
    slots = asyncio.Semaphore(_MAX_CONCURRENT_LOADS)
    errors: list[UnavailableError] = []

    async def do(shard: Shard, work: _Work) -> None:
        async with slots:
            try:
                await work()
            except UnavailableError as error:
                # A lease that has run out is renewed in a moment. A shard that is gone is
                # another's affair.
                if engine.shards.get(shard.shard_id) is shard:
                    errors.append(error)

    async with asyncio.TaskGroup() as group:
        for shard, work in works:
            group.create_task(do(shard, work))
    if errors:
        raise errors[0]


async def _recover_run(engine: Engine, shard: Shard, key: RunKey, is_flagged: bool) -> None:
    if engine.shards.get(shard.shard_id) is not shard:
        return
    try:
        run = await engine.load(key.namespace_id, key.workflow_id, key.run_id)
    except WorkflowNotFoundError:
        _log.error("a run that the log names is not there", run_id=key.run_id)
        return
    if engine.shards.get(shard.shard_id) is not shard:
        return
    _RECOVERED.inc()
    shard.note_recovered(key, owes=owes_tasks(run.state), is_flagged=is_flagged)
    engine.offer_obligations(run)


async def offer_all_again(engine: Engine) -> None:
    """The backlog is lost: offer again what every run of every shard of this host owes.

    Raises:
        UnavailableError: Some runs could not be loaded; call again.
    """
    keys = [(shard, key) for shard in engine.shards.values() for key in shard.owing_runs()]
    if keys:
        _log.warning("the backlog was lost; offering all tasks again", runs=len(keys))

    async def offer(shard: Shard, key: RunKey) -> None:
        if engine.shards.get(shard.shard_id) is not shard:
            return
        try:
            run = await engine.load(key.namespace_id, key.workflow_id, key.run_id)
        except WorkflowNotFoundError:
            return
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - logged whole
            # See above.
            _log.exception("a run's tasks could not be offered again", run_id=key.run_id)
            _FAILED.inc()
            return
        engine.offer_obligations(run)

    await _for_each(engine, [(shard, partial(offer, shard, key)) for shard, key in keys])
