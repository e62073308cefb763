"""A kind of aggregate that is defined for tests alone: counters, which tell each other.

    none ──added to──► counting ──its time──► closed

A counter has a name, and is made by whoever first adds to it. What is added may be told to other
counters: that is a call that it owes until it has noted what came of it, closed or not. Adding may
close it and begin the next one of its name, with the same amount. What it notes is in a form of its
own, and so is its snapshot. No file of the server knows of it.
"""

import json
import uuid
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from aetheris.server.v1 import log_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, AggregateName, CallOutcome
from aetheris_server.errors import RequestError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.key import AggregateKey, id_of_name
from aetheris_server.history.aggregates.kind import Kind
from aetheris_server.history.aggregates.obligation import Called, make_call
from aetheris_server.history.aggregates.records import EMPTY_HASH, chain_hash
from aetheris_server.history.kinds import KINDS
from aetheris_server.history.times import from_timestamp, to_timestamp

NAME = "counter"
_ENTRY_BYTES = 100
# A counter that is read back gets its time from its newest record.
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TOLD_AT_ONCE = 1_000


def counter_key(namespace_id: str, name: str) -> AggregateKey:
    """A counter's, whether it is there or not."""
    return AggregateKey(namespace_id, name, id_of_name(NAME, namespace_id, name), NAME)


def next_key(key: AggregateKey) -> AggregateKey:
    """Of the counter that one begins."""
    return replace(key, id=str(uuid.uuid5(uuid.UUID(key.id), "next")))


def counter_name(namespace_id: str, name: str) -> AggregateName:
    """What a counter is called by."""
    return AggregateName(kind=NAME, namespace_id=namespace_id, name=name)


class Counter(Aggregate):
    """One in memory.

    Attributes:
        count: All that has been added.
        counts: What the count was after each request to add, by request id.
        expire_time: When it closes; None for never.
        owed: Whom it is to tell of what was added, by the call's number.
        told: How often it has told each, and how often it was refused there.
    """

    __slots__ = (
        "_close_time",
        "_hash",
        "_log_bytes",
        "_seq",
        "count",
        "counts",
        "expire_time",
        "owed",
        "told",
    )

    def __init__(self, key: AggregateKey, shard_id: int, time: datetime) -> None:
        super().__init__(key, shard_id, time)
        self.count = 0
        self.counts: dict[str, int] = {}
        self.expire_time: datetime | None = None
        self.owed: dict[int, str] = {}
        self.told: dict[str, list[int]] = {}
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
        return _ENTRY_BYTES * (len(self.counts) + len(self.owed))

    @property
    def close_time(self) -> datetime | None:
        return self._close_time

    # Facts.

    def apply(self, record: log_pb2.LogRecord, stored: bytes) -> None:
        self._seq += 1
        time = from_timestamp(record.time)
        for fact in record.facts:
            self._apply(json.loads(fact.machine_fact.data), time)
        self._hash = chain_hash(self._hash, stored)
        self._log_bytes += len(stored)

    def _apply(self, noted: dict[str, Any], time: datetime) -> None:
        match noted["what"]:
            case "added":
                self.count += noted["amount"]
                self.counts[noted["request_id"]] = self.count
                if "seconds" in noted:
                    self.expire_time = time + timedelta(seconds=noted["seconds"])
                if noted.get("begins"):
                    self._close_time = time
                for index, name in enumerate(noted.get("tell", ())):
                    self.owed[self._seq * _MAX_TOLD_AT_ONCE + index] = name
            case "answered":
                counts = self.told.setdefault(self.owed.pop(noted["number"]), [0, 0])
                counts[noted["is_refused"]] += 1
            case "expired":
                self._close_time = time
            case unknown:
                raise ValueError(unknown)

    def to_snapshot(self) -> bytes:
        times = (self.expire_time, self._close_time)
        return json.dumps(
            {
                "count": self.count,
                "counts": self.counts,
                "owed": list(self.owed.items()),
                "told": self.told,
                "times": [time.isoformat() if time is not None else None for time in times],
                "log_bytes": self._log_bytes,
            }
        ).encode()

    def begun_by(
        self, record: log_pb2.LogRecord
    ) -> Iterable[tuple[AggregateKey, log_pb2.LogRecord]]:
        for fact in record.facts:
            noted = json.loads(fact.machine_fact.data)
            if noted.get("begins"):
                first = {**noted, "begins": noted["begins"] - 1}
                yield next_key(self.key), _to_record(from_timestamp(record.time), **first)

    # Time.

    def next_deadline(self, now: datetime) -> datetime | None:
        return self.expire_time if self.is_open else None

    def new_deadline(self, record: log_pb2.LogRecord) -> datetime | None:
        return self.expire_time if self.is_open else None

    def decide_due(self, now: datetime, at: float) -> log_pb2.LogRecord | None:
        if not self.is_open or self.expire_time is None or self.expire_time > now:
            return None
        return _to_record(now, what="expired")

    # What it owes.

    def owes(self) -> bool:
        return bool(self.owed)

    def obligations(self, now: datetime) -> list[AggregateCall]:
        return [self._to_call(number) for number in self.owed]

    def new_obligations(self, record: log_pb2.LogRecord, now: datetime) -> list[AggregateCall]:
        first = self._seq * _MAX_TOLD_AT_ONCE
        return [self._to_call(number) for number in self.owed if number >= first]

    def _to_call(self, number: int) -> AggregateCall:
        target = counter_name(self.key.namespace_id, self.owed[number])
        return make_call(self.key, number, target, to_payload(1))

    def decide_answered(
        self, call: AggregateCall, outcome: CallOutcome, now: datetime
    ) -> log_pb2.LogRecord | None:
        number = int(call.request_id.rpartition("/")[2])
        if number not in self.owed:
            return None
        is_refused = outcome.HasField("refused")
        return _to_record(now, what="answered", number=number, is_refused=is_refused)


def to_payload(amount: int, tell: Sequence[str] = (), **optional: float) -> bytes:
    """What a counter is called with, to add an amount; of `optional`, `seconds` says in how many
    it is to close.
    """
    return json.dumps({"amount": amount, "tell": [*tell], **optional}).encode()


READ = b'{"amount": 0}'
"""What a counter is called with, to say what it has."""


def decide_added(
    counter: Counter | None, request_id: str, amount: int, now: datetime, **optional: Any
) -> log_pb2.LogRecord | None:
    """Something is added, once for each request."""
    if counter is not None and request_id in counter.counts:
        return None
    return _to_record(now, what="added", request_id=request_id, amount=amount, **optional)


def decide_called(counter: Aggregate | None, call: AggregateCall, now: datetime) -> Called:
    """Add what the call says; the answer is the count after that. A counter that has closed takes
    nothing more.
    """
    assert counter is None or isinstance(counter, Counter)
    if call.payload == READ:
        return Called(None, _describe(counter))
    if counter is not None and call.request_id in counter.counts:
        return Called(None, b"%d" % counter.counts[call.request_id])
    if counter is not None and not counter.is_open:
        raise RequestError(f"the counter {counter.key.name!r} has closed")
    asked = json.loads(call.payload)
    count = (counter.count if counter is not None else 0) + asked["amount"]
    record = decide_added(counter, call.request_id, now=now, **asked)
    return Called(record, b"%d" % count)


def _describe(counter: Counter | None) -> bytes:
    if counter is None:
        return b"{}"
    return json.dumps(
        {
            "count": counter.count,
            "requests": sorted(counter.counts),
            "owed": len(counter.owed),
            "told": counter.told,
        }
    ).encode()


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
    counter.count, counter.counts = saved["count"], saved["counts"]
    counter.owed, counter.told = dict(saved["owed"]), saved["told"]
    counter.expire_time, counter._close_time = expire_time, close_time
    counter._seq, counter._hash, counter._log_bytes = seq, hash_, saved["log_bytes"]
    return counter


COUNTER = Kind(name=NAME, begin=_begin, restore=_restore, decide_called=decide_called)


@contextmanager
def counters_served() -> Generator[None]:
    """This process knows the kind until the block is left."""
    before = KINDS.all()
    KINDS.use((*before, COUNTER))
    try:
        yield
    finally:
        KINDS.use(before)
