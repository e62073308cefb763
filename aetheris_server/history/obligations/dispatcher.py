"""Takes whatever aggregates owe, of each kind, into the lanes for it."""

from collections.abc import Iterable
from typing import Any

from aetheris.server.v1.history_service_pb2 import AggregateCall
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.clock import Clock
from aetheris_server.history.aggregates.obligation import Obligation
from aetheris_server.history.aggregates.transition import Ticket
from aetheris_server.history.obligations.carrier import Carrier
from aetheris_server.history.obligations.lanes import Lanes
from aetheris_server.loops import run_loops

AnyLanes = Lanes[Any]


class Dispatcher:
    """The lanes of a host, for all kinds of obligations.

    Attributes:
        tasks: The lanes for tasks.
        calls: The lanes for calls.
    """

    def __init__(
        self, tasks: Carrier[TaskRef], calls: Carrier[AggregateCall], clock: Clock
    ) -> None:
        """Args:
        tasks: How tasks are sent.
        calls: How calls are sent.
        clock: Of this host.
        """
        self.tasks = Lanes(tasks, clock)
        self.calls = Lanes(calls, clock)

    @property
    def all_lanes(self) -> tuple[AnyLanes, ...]:
        """Those for each kind."""
        return (self.tasks, self.calls)

    def offer(self, owed: Iterable[Obligation]) -> None:
        """See that it is done; what it follows from is on disk. See `Lanes.offer`."""
        tasks: list[TaskRef] = []
        calls: list[AggregateCall] = []
        for each in owed:
            if isinstance(each, TaskRef):
                tasks.append(each)
            else:
                calls.append(each)
        if tasks:
            self.tasks.offer(tasks)
        if calls:
            self.calls.offer(calls)

    def offer_behind(self, ticket: Ticket | None, owed: Iterable[Obligation]) -> None:
        """Offer them once what they follow from is on disk, and not if it never is.

        Args:
            ticket: Of that; None for what is on disk.
            owed: In order.
        """
        if ticket is None or ticket.is_done:
            self.offer(owed)
        else:
            ticket.obligations.extend(owed)

    def is_behind(self, owed: Obligation) -> bool:
        """Whether the host of one takes them more slowly than they come, or not at all."""
        if isinstance(owed, TaskRef):
            return self.tasks.is_behind(owed)
        return self.calls.is_behind(owed)

    async def wait_room(self) -> None:
        """Return when no lane that moves at all is half full."""
        for lanes in self.all_lanes:
            await lanes.wait_room()

    async def run(self) -> None:
        """Send until cancelled."""
        await run_loops(*(lanes.run() for lanes in self.all_lanes))
