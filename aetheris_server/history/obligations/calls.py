"""Calls that are owed go to the owners of their targets; what came of them, back to the callers.

A call is under way from the moment it enters a lane until the caller's log has what came of it. In
between it is not sent beside itself, whoever offers it again: recovery, the sweep, catching up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Hashable, Sequence

from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome, CallRefused
from aetheris_server.history.aggregates.obligation import MAX_CALL_BYTES, TOO_LARGE
from aetheris_server.ids import shard_of
from aetheris_server.rpc.peers import CallPeer

RecordOutcome = Callable[[AggregateCall, CallOutcome], Awaitable[bool]]
"""Brings an answer, or a refusal, to the caller; whether the call need not be sent again."""


class CallCarrier:
    """A `Carrier` of calls to other aggregates."""

    kind = "call"

    def __init__(
        self,
        history: CallPeer,
        locate_shard: Callable[[int], str | None],
        shard_count: int,
        is_held: Callable[[int], bool],
        record: RecordOutcome,
    ) -> None:
        """Args:
        history: Takes the calls of a lane in one call.
        locate_shard: Where a shard's host is; None for this one, or where it is not known.
        shard_count: Of the cluster.
        is_held: Whether this host has a shard.
        record: Of the callers.
        """
        self._history = history
        self._locate_shard = locate_shard
        self._shard_count = shard_count
        self._is_held = is_held
        self._record = record
        self._under_way: set[str] = set()

    def locate(self, owed: AggregateCall) -> str | None:
        return self._locate_shard(self._target_shard(owed))

    def shard_of(self, owed: AggregateCall) -> int:
        return shard_of(owed.caller.namespace_id, owed.caller.name, self._shard_count)

    def group_of(self, owed: AggregateCall) -> Hashable:
        return self._target_shard(owed)

    def _target_shard(self, owed: AggregateCall) -> int:
        return shard_of(owed.target.namespace_id, owed.target.name, self._shard_count)

    def is_derived(self, owed: AggregateCall) -> bool:
        del owed
        return True

    def admit(self, owed: AggregateCall) -> bool:
        if owed.request_id in self._under_way:
            return False
        self._under_way.add(owed.request_id)
        return True

    def release(self, owed: AggregateCall) -> None:
        self._under_way.discard(owed.request_id)

    def is_over(self, owed: AggregateCall) -> bool:
        # Who has the caller's shard derives it again.
        return not self._is_held(self.shard_of(owed))

    async def send(self, batch: Sequence[AggregateCall]) -> Collection[AggregateCall]:
        outcomes = await self._call(batch)
        done = await asyncio.gather(*map(self._record, batch, outcomes))
        return [call for call, is_done in zip(batch, done, strict=True) if not is_done]

    async def _call(self, batch: Sequence[AggregateCall]) -> Sequence[CallOutcome]:
        if batch[0].ByteSize() > MAX_CALL_BYTES:
            # Such a one is a batch by itself. It is refused here: no other host would get it.
            return [CallOutcome(refused=CallRefused(message=TOO_LARGE))]
        return await self._history.call_aggregates(batch)
