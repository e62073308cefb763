"""What the lanes need of one kind of obligation: where it goes, and how it is sent."""

from collections.abc import Collection, Hashable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

T = TypeVar("T", bound=Message)


class Carrier(Protocol[T]):
    """One kind of obligation.

    Attributes:
        kind: For people.
    """

    @property
    def kind(self) -> str: ...

    def locate(self, owed: T) -> str | None:
        """The address of the host that one goes to; None is this one."""
        ...

    def shard_of(self, owed: T) -> int:
        """The shard that it is derived from again."""
        ...

    def group_of(self, owed: T) -> Hashable:
        """What is tried again together, of one host's."""
        ...

    def admit(self, owed: T) -> bool:
        """Take note of one that is about to enter a lane; False if it is in one already."""
        ...

    def release(self, owed: T) -> None:
        """Take note of one that was admitted and leaves the lanes."""
        ...

    def is_derived(self, owed: T) -> bool:
        """Whether it can be derived again, so that it may be forgotten where there is no room."""
        ...

    def is_over(self, owed: T) -> bool:
        """Whether nobody wants any more that it is tried again."""
        ...

    async def send(self, batch: Sequence[T]) -> Collection[T]:
        """Send some that go to one host; those of them that are to be sent again.

        Raises:
            UnavailableError: Any of them may not be done; send all again.
        """
        ...
