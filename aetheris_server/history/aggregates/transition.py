"""A record that has been applied to memory, and is on its way to the disk."""

import asyncio
from dataclasses import dataclass

from aetheris_server.errors import AetherisError
from aetheris_server.history.aggregates.obligation import Obligation


class Ticket:
    """A commit to come. Any number of tasks may `wait`, and any of them may be cancelled.

    Attributes:
        obligations: What is offered when it is on disk.
    """

    __slots__ = ("_error", "_is_done", "_waiters", "obligations")

    def __init__(self) -> None:
        self.obligations: list[Obligation] = []
        self._is_done = False
        self._error: AetherisError | None = None
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_done(self) -> bool:
        """Whether the commit has succeeded or failed."""
        return self._is_done

    async def wait(self) -> None:
        """Return when the commit is on disk.

        Raises:
            UnavailableError: It failed, or is not known to have succeeded.
            UnstorableError: The store refuses a value in it.
        """
        if not self._is_done:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._error is not None:
            raise self._error

    def resolve(self, error: AetherisError | None = None) -> None:
        """Let the waiters go on."""
        self._is_done = True
        self._error = error
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


@dataclass(slots=True)
class Transition:
    """A record that has been applied and queued.

    Attributes:
        ticket: Tells when it is on disk.
    """

    ticket: Ticket

    @property
    def obligations(self) -> list[Obligation]:
        """What is offered then. Who takes a task eagerly removes it before it awaits anything."""
        return self.ticket.obligations
