"""A kind of aggregate that is defined for tests alone: counters.

    none ──added to──► counting ──its time──► closed

A counter has a name, and is made by whoever first adds to it. What it notes is in a form of its
own, and so is its snapshot. No file of the server knows of it.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from aetheris.server.v1 import log_pb2
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.key import AggregateKey, id_of_name
from aetheris_server.history.aggregates.kind import Kind
from aetheris_server.history.aggregates.records import EMPTY_HASH, chain_hash
from aetheris_server.history.kinds import KINDS
from aetheris_server.history.times import from_timestamp, to_timestamp

NAME = "counter"
_ENTRY_BYTES = 100
# A counter that is read back gets its time from its newest record.
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


def counter_key(namespace_id: str, name: str) -> AggregateKey:
    """A counter's, whether it is there or not."""
    return AggregateKey(namespace_id, name, id_of_name(NAME, namespace_id, name), NAME)


class Counter(Aggregate):
    """One in memory.

    Attributes:
        count: All that has been added.
        request_ids: By which it was added.
        expire_time: When it closes; None for never.
    """

    __slots__ = (
        "_close_time",
        "_hash",
        "_log_bytes",
        "_seq",
        "count",
        "expire_time",
        "request_ids",
    )

    def __init__(self, key: AggregateKey, shard_id: int, time: datetime) -> None:
        super().__init__(key, shard_id, time)
        self.count = 0
        self.request_ids: set[str] = set()
        self.expire_time: datetime | None = None
        self._close_time: datetime | None = None
        self._seq = 0
        self._hash = EMPTY_HASH
        self._log_bytes = 0

    @property
    def seq(self) -> int:
        return self._seq

    @property
    def hash(self) -> bytes:
        return self._hash

    @property
    def log_bytes(self) -> int:
        return self._log_bytes

    @property
    def state_bytes(self) -> int:
        return _ENTRY_BYTES * len(self.request_ids)

    @property
    def close_time(self) -> datetime | None:
        return self._close_time

    # Facts.

    def apply(self, record: log_pb2.LogRecord, stored: bytes) -> None:
        time = from_timestamp(record.time)
        for fact in record.facts:
            self._apply(json.loads(fact.machine_fact.data), time)
        self._seq += 1
        self._hash = chain_hash(self._hash, stored)
        self._log_bytes += len(stored)

    def _apply(self, noted: dict[str, Any], time: datetime) -> None:
        match noted["what"]:
            case "added":
                self.count += noted["amount"]
                self.request_ids.add(noted["request_id"])
                if "seconds" in noted:
                    self.expire_time = time + timedelta(seconds=noted["seconds"])
            case "expired":
                self._close_time = time
            case unknown:
                raise ValueError(unknown)

    def to_snapshot(self) -> bytes:
        times = (self.expire_time, self._close_time)
        return json.dumps(
            {
                "count": self.count,
                "request_ids": sorted(self.request_ids),
                "times": [time.isoformat() if time is not None else None for time in times],
                "log_bytes": self._log_bytes,
            }
        ).encode()

    # Time.

    def next_deadline(self, now: datetime) -> datetime | None:
        return self.expire_time if self.is_open else None

    def new_deadline(self, record: log_pb2.LogRecord) -> datetime | None:
        return self.expire_time if self.is_open else None

    def decide_due(self, now: datetime, at: float) -> log_pb2.LogRecord | None:
        if not self.is_open or self.expire_time is None or self.expire_time > now:
            return None
        return _to_record(now, what="expired")


def decide_added(
    counter: Counter | None, request_id: str, amount: int, now: datetime, **optional: float
) -> log_pb2.LogRecord | None:
    """Something is added, once for each request; `seconds` says in how many it is to close."""
    if counter is not None and request_id in counter.request_ids:
        return None
    return _to_record(now, what="added", request_id=request_id, amount=amount, **optional)


def _to_record(now: datetime, **noted: Any) -> log_pb2.LogRecord:
    record = log_pb2.LogRecord(time=to_timestamp(now))
    fact = record.facts.add().machine_fact
    fact.machine = NAME
    fact.data = json.dumps(noted).encode()
    return record


def _begin(key: AggregateKey, shard_id: int, record: log_pb2.LogRecord) -> Counter:
    return Counter(key, shard_id, from_timestamp(record.time))


def _restore(key: AggregateKey, shard_id: int, seq: int, hash_: bytes, data: bytes) -> Counter:
    saved = json.loads(data)
    expire_time, close_time = (
        datetime.fromisoformat(text) if text is not None else None for text in saved["times"]
    )
    counter = Counter(key, shard_id, _LONG_AGO)
    counter.count = saved["count"]
    counter.request_ids = set(saved["request_ids"])
    counter.expire_time, counter._close_time = expire_time, close_time
    counter._seq, counter._hash, counter._log_bytes = seq, hash_, saved["log_bytes"]
    return counter


COUNTER = Kind(name=NAME, begin=_begin, restore=_restore)


@contextmanager
def counters_served() -> Generator[None]:
    """This process knows the kind until the block is left."""
    before = KINDS.all()
    KINDS.use((*before, COUNTER))
    try:
        yield
    finally:
        KINDS.use(before)
