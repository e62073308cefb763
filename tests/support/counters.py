"""Counters on real servers, called as one host calls another."""

import asyncio
import json
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aetheris.server.v1.history_service_pb2 import AggregateCall, AggregateName, CallOutcome
from aetheris_server.config import PostgresSettings
from aetheris_server.errors import UnavailableError
from aetheris_server.history.aggregates.kinds import Kinds
from aetheris_server.history.engine.loader import load_several
from aetheris_server.ids import shard_of
from aetheris_server.loops import pause
from aetheris_server.rpc.channels import ChannelPool
from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.rpc.errors import PeerFaultError
from aetheris_server.rpc.remote import RemoteHistory
from aetheris_server.storage.database import Database
from aetheris_server.storage.secrets import ensure_secrets
from tests.support.counter import COUNTER, NAME, READ, counter_name, to_payload

NAMESPACE_ID = "11111111-1111-4111-8111-111111111111"
_CALLER = AggregateName(kind="test", namespace_id=NAMESPACE_ID, name="test", id="test")
_PATIENCE = 30.0
_TRY_TIMEOUT = 1.0


class Counters:
    """The counters of a cluster. Each call is repeated, at all hosts in turn, until one answers."""

    def __init__(self, pool: ChannelPool, addresses: Sequence[str]) -> None:
        self._pool = pool
        self._addresses = addresses

    async def add(self, name: str, request_id: str = "", **asked: Any) -> int:
        """Add one to a counter; the count after that."""
        request_id = request_id or str(uuid.uuid4())
        return int(await self._ask(name, request_id, to_payload(1, **asked)))

    async def read(self, name: str) -> dict[str, Any]:
        """What a counter has; nothing if there is none."""
        return json.loads(await self._ask(name, "read", READ))

    async def _ask(self, name: str, request_id: str, payload: bytes) -> bytes:
        target = counter_name(NAMESPACE_ID, name)
        call = AggregateCall(request_id=request_id, caller=_CALLER, target=target, payload=payload)
        async with asyncio.timeout(_PATIENCE):
            while True:
                for address in self._addresses:
                    outcome = await self._try(address, call)
                    if outcome.HasField("refused"):
                        raise AssertionError(outcome)
                    if outcome.HasField("answer"):
                        return outcome.answer
                await pause(0.05)

    async def _try(self, address: str, call: AggregateCall) -> CallOutcome:
        try:
            async with asyncio.timeout(_TRY_TIMEOUT):
                (outcome,) = await RemoteHistory(self._pool, address).call_aggregates([call])
        except (UnavailableError, PeerFaultError, TimeoutError):
            return CallOutcome()
        return outcome


@asynccontextmanager
async def counters_of(dsn: str, addresses: Sequence[str]) -> AsyncGenerator[Counters]:
    """The counters of a cluster whose hosts listen at these internal addresses."""
    async with Database(PostgresSettings(dsn=dsn)) as db:
        secrets = await ensure_secrets(db)
    async with ChannelPool(PeerCredentials(secrets)) as pool:
        yield Counters(pool, addresses)


def names_in(shard_ids: Sequence[int], shard_count: int, prefix: str, count: int) -> list[str]:
    """Names of counters, in these shards in turn."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"{prefix}-{number}"
        wanted = shard_ids[len(found) % len(shard_ids)]
        if shard_of(NAMESPACE_ID, name, shard_count) == wanted:
            found.append(name)
        number += 1
    return found


async def audit_counters(dsn: str) -> int:
    """Check that the log of every counter is whole, and folds to what its row says; how many there
    are.
    """
    kinds = Kinds((COUNTER,))
    async with Database(PostgresSettings(dsn=dsn)) as db:
        rows = await db.fetch(
            "SELECT shard_id, namespace_id::text, name, id::text, owes FROM aggregates"
        )
        owes = {row[3]: row[4] for row in rows}
        wanted = [(row[0], kinds.key(NAME, row[1], row[2], row[3])) for row in rows]
        found = [each async for part in load_several(db, kinds, wanted) for each in part]
    assert len(found) == len(rows), "some cannot be folded"
    for each in found:
        # A flag too many does no harm; one too few, of what has closed, would lose what it owes.
        assert each.is_open or each.owes() == owes[each.key.id]
        assert not each.owes()
    return len(found)
