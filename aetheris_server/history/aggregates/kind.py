"""What a kind of aggregate is: how one begins and how it is read back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall
from aetheris_server.errors import AggregateNotFoundError, RequestError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.index import Index, SharedIndex
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.obligation import Called


def _not_found(key: AggregateKey) -> AggregateNotFoundError:
    return AggregateNotFoundError(f"{key.kind} {key.name!r} {key.id!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind.

    Attributes:
        name: In rows and in calls, so it never changes.
        begin: The aggregate of a key, in a shard, before its first record, which is the last
            argument and has not been applied. Raises BrokenLogError for a record that cannot be
            one's first.
        restore: The aggregate of a key, in a shard, from seq, hash and the bytes of a snapshot.
            Raises BrokenLogError for bytes that are none, UnknownRecordError for a newer program's.
        index: Where the rows are.
        make_key: Its own form of the key, from namespace id, name and id; None for none.
        not_found: The error that says that there is none.
        decide_called: What a call comes to, given the aggregate, or None where there is none yet,
            the call, and the time. A call that came before, which its request id tells, gives the
            same answer and no record. Raises RequestError to refuse for good. None: it is never
            called.
    """

    name: str
    begin: Callable[[AggregateKey, int, log_pb2.LogRecord], Aggregate]
    restore: Callable[[AggregateKey, int, int, bytes, bytes], Aggregate]
    index: Index = field(default_factory=SharedIndex)
    make_key: Callable[[str, str, str], AggregateKey] | None = None
    not_found: Callable[[AggregateKey], RequestError] = _not_found
    decide_called: Callable[[Aggregate | None, AggregateCall, datetime], Called] | None = None
