"""CallAggregates: each call is answered by itself, once what it comes to is on disk.

Whether it came before, the target's kind tells by its request id: what the first one came to is the
answer to all.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from aetheris.server.v1.history_service_pb2 import (
    AggregateCall,
    CallOutcome,
    CallRefused,
    CallRetry,
)
from aetheris_server.errors import (
    AggregateNotFoundError,
    InvalidArgumentError,
    RequestError,
    RunUnreadableError,
    UnavailableError,
)
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.checks import check_key
from aetheris_server.history.aggregates.key import AggregateKey, id_of_name
from aetheris_server.history.aggregates.obligation import MAX_CALL_BYTES, TOO_LARGE
from aetheris_server.history.engine.engine import Engine
from aetheris_server.rpc.remote import CALL_TIMEOUT
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_ANSWERED = counter("calls_answered", "Calls of aggregates, by what they came to.", ["outcome"])

# One that takes longer does not keep the answers of the others from leaving.
_ANSWER_TIMEOUT = 0.8 * CALL_TIMEOUT
# Of all answers that leave together; what is behind them is called again.
_MAX_ANSWER_BYTES = 1024 * 1024

_RETRY = CallOutcome(retry=CallRetry())


Answer = Callable[[AggregateCall], Awaitable[bytes]]
"""Does what a call asks, and returns the answer once that is on disk. It may await while it looks
for the target, and may begin one; from when it decides until it has committed it does not await.

Raises RequestError to refuse for good, UnavailableError for what is to be called again.
"""


async def answer_calls(
    engine: Engine,
    calls: Sequence[AggregateCall],
    by_kind: Mapping[str, Answer] = MappingProxyType({}),
) -> list[CallOutcome]:
    """Answer each call for what this host has; one outcome each, in order.

    Args:
        engine: Of this host.
        calls: To aggregates of its shards.
        by_kind: What answers for kinds that find their aggregates by more than a name or an id.
    """
    outcomes = await asyncio.gather(*(_answer_or_retry(engine, by_kind, call) for call in calls))
    byte_count = 0
    for position, outcome in enumerate(outcomes):
        byte_count += len(outcome.answer)
        if position and byte_count > _MAX_ANSWER_BYTES:
            outcomes[position] = _RETRY
        _ANSWERED.labels(outcomes[position].WhichOneof("outcome")).inc()
    return outcomes


async def _answer_or_retry(
    engine: Engine, by_kind: Mapping[str, Answer], call: AggregateCall
) -> CallOutcome:
    answer = by_kind.get(call.target.kind, partial(_answer_by_key, engine))
    try:
        _check_call(call)
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            return CallOutcome(answer=await answer(call))
    except RequestError as error:
        return CallOutcome(refused=CallRefused(message=str(error)))
    except (UnavailableError, RunUnreadableError, TimeoutError) as error:
        # Or a newer program knows the kind, or what is stored.
        _log.debug("a call is not answered", request_id=call.request_id, error=str(error))
    except Exception:  # noqa: BLE001 - logged whole
        # One aggregate at fault must not take along the calls of others.
        _log.exception("a call could not be answered", request_id=call.request_id)
    return _RETRY


def _check_call(call: AggregateCall) -> None:
    check_key(call.target.namespace_id, call.target.name)
    if call.ByteSize() > MAX_CALL_BYTES:
        raise InvalidArgumentError("payload", TOO_LARGE)


async def _answer_by_key(engine: Engine, call: AggregateCall) -> bytes:
    target = call.target
    id_of_its_name = id_of_name(target.kind, target.namespace_id, target.name)
    id_ = target.id or id_of_its_name
    key = engine.kinds.key(target.kind, target.namespace_id, target.name, id_)
    kind = engine.kinds.of(key)
    decide = kind.decide_called
    if decide is None:
        raise RequestError(f"a {target.kind} takes no calls")
    aggregate = await _try_load(engine, key)
    if aggregate is None and id_ != id_of_its_name:
        # Begun by another's id it would be taken for that one.
        raise kind.not_found(key)
    now = engine.time_of(aggregate) if aggregate is not None else engine.clock.now()
    try:
        called = decide(aggregate, call, now)
    except RequestError:
        if aggregate is not None:
            # What the refusal goes by may not be on disk yet.
            await aggregate.wait_committed()
        raise
    if called.record is not None:
        if aggregate is None:
            aggregate = engine.create(key, called.record)
        engine.commit(aggregate, called.record)
    if aggregate is not None:
        await aggregate.wait_committed()
    return called.answer


async def _try_load(engine: Engine, key: AggregateKey) -> Aggregate | None:
    """The aggregate; None if there is none. What follows without an await may begin it."""
    try:
        return await engine.load(key)
    except AggregateNotFoundError:
        # Another call may have begun it since the disk was asked; or the id is another's.
        found = engine.cache.find(key.id)
        return found if found is not None and found.key == key else None
