"""One lane: what goes to one host, bounded in number and in bytes."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

LANE_MAX_COUNT = 20_000
LANE_MAX_BYTES = 32 * 1024 * 1024

MAX_BATCH = 500
# Well below what one message to another host may have.
MAX_BATCH_BYTES = 1024 * 1024
_LIMIT_STEP = 25

T = TypeVar("T", bound=Message)


@dataclass(slots=True)
class Lane(Generic[T]):
    """What goes to one host. The counts are of all that it has not taken yet: of what is queued, on
    its way, or waits for its next try.

    Attributes:
        batch_limit: How many go in one call. On a slow way calls that are too large all take too
            long, and would do so for ever; so it is halved by one of which nothing was taken, and
            grows by a step with each of which something was.
    """

    queue: deque[T] = field(default_factory=deque[T])
    count: int = 0
    byte_count: int = 0
    batch_count: int = 0
    batch_limit: int = MAX_BATCH
    last_taken_at: float = 0.0

    @property
    def is_full(self) -> bool:
        """Whether what comes now finds no room."""
        return self.count >= LANE_MAX_COUNT or self.byte_count >= LANE_MAX_BYTES

    @property
    def has_room(self) -> bool:
        """Whether it is worth while to derive what found no room before."""
        return self.count <= LANE_MAX_COUNT // 2 and self.byte_count <= LANE_MAX_BYTES // 2

    @property
    def is_behind(self) -> bool:
        """Whether more waits than goes in one call."""
        return self.count > MAX_BATCH

    def add(self, owed: T) -> None:
        """Queue one."""
        self.count_in(owed)
        self.queue.append(owed)

    def take_all(self) -> deque[T]:
        """All that is queued, which is not this lane's any more."""
        queued, self.queue = self.queue, deque()
        self.count_out(queued)
        return queued

    def take_batch(self) -> list[T]:
        """The first that are queued, as many as go in one call: at least one. They still count."""
        batch: list[T] = []
        byte_count = 0
        while self.queue and len(batch) < self.batch_limit:
            byte_count += self.queue[0].ByteSize()
            if batch and byte_count > MAX_BATCH_BYTES:
                break
            batch.append(self.queue.popleft())
        return batch

    def note_taken(self, now: float) -> None:
        """Something of a batch was taken."""
        self.last_taken_at = now
        self.batch_limit = min(self.batch_limit + _LIMIT_STEP, MAX_BATCH)

    def note_left(self, count: int) -> None:
        """Nothing was taken of a batch of so many."""
        if count > 1:
            self.batch_limit = min(self.batch_limit, count // 2)

    def count_in(self, owed: T) -> None:
        """Count one that is on its way, or waits for its next try."""
        self.count += 1
        self.byte_count += owed.ByteSize()

    def count_out(self, done: Iterable[T]) -> None:
        """They are this lane's no more."""
        for owed in done:
            self.count -= 1
            self.byte_count -= owed.ByteSize()
