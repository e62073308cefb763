"""Ids that the server makes, and the place of a workflow id among the shards."""

import os
import threading
import time
import uuid
from functools import lru_cache
from hashlib import blake2b

__all__ = ["new_run_id", "shard_of"]

_COUNTER_BITS = 12
_RANDOM_MASK = (1 << 62) - 1


class _RunIds:
    """UUIDv7 values that never repeat and never go back within one process.

    Source:
        RFC 9562, 6.2, method 3: milliseconds with twelve bits of finer time below them. Where two
        calls fall into one step, or the wall clock steps back, the next value after the last is
        taken.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def make(self) -> uuid.UUID:
        ticks = (time.time_ns() << _COUNTER_BITS) // 1_000_000
        with self._lock:
            self._last = ticks = max(self._last + 1, ticks)
        milliseconds, fraction = ticks >> _COUNTER_BITS, ticks & ((1 << _COUNTER_BITS) - 1)
        random = int.from_bytes(os.urandom(8)) & _RANDOM_MASK
        return uuid.UUID(int=milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)


_run_ids = _RunIds()


def new_run_id() -> str:
    """A new run id: a UUIDv7 in its usual text form, greater than every one made before in this
    process.
    """
    return str(_run_ids.make())


# A run is looked up a dozen times on its way, mostly within moments.
@lru_cache(8192)
def shard_of(namespace_id: str, workflow_id: str, shard_count: int) -> int:
    """The shard, 0 .. shard_count - 1, that owns every run of a workflow id.

    The result is part of the stored format: it must never change for a given triple, on any
    platform or Python. It is the first eight bytes, big-endian, of BLAKE2b (digest size 8) over the
    length of the namespace id in bytes (four bytes, big-endian), the namespace id and the workflow
    id, modulo shard_count. The length keeps ("ab", "c") and ("a", "bc") apart.
    """
    namespace = namespace_id.encode()
    digest = blake2b(
        len(namespace).to_bytes(4) + namespace + workflow_id.encode(),
        digest_size=8,
        usedforsecurity=False,
    ).digest()
    return int.from_bytes(digest) % shard_count
