"""What workflow code asked for, and whether the history agrees.

An activation's commands go out in the order in which the code gave them. In a history they come
back as events in that same order, so replay compares the two queues one by one.
"""

from collections import deque
from collections.abc import Callable
from typing import Protocol

from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.history_pb2 import EventType, HistoryEvent
from aetheris_worker.runtime.call_site import CallSite, describe_site, find_call_site
from aetheris_worker.runtime.errors import NondeterminismError


class ProducedCommand(Protocol):
    """One thing that workflow code asked for."""

    @property
    def event_type(self) -> int:
        """The type of the event that records it."""
        ...

    @property
    def is_withdrawn(self) -> bool:
        """The code took it back before it was sent: it never goes out."""
        ...

    def to_proto(self) -> Command:
        """The command as the server wants it."""
        ...

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        """Whether an event of its event_type is the one that this command would have caused."""
        ...

    def mark_recorded(self, event: HistoryEvent) -> None:
        """The event is in the history."""
        ...

    def describe(self) -> str:
        """What the code did, as in "scheduled activity '1' of type 'pay'"."""
        ...


class CommandLog:
    """Commands of the current activation, and those whose events have not been seen yet.

    Args:
        describe_event: What an event records, in the words that ProducedCommand.describe uses.
    """

    def __init__(self, describe_event: Callable[[HistoryEvent], str]) -> None:
        self._describe_event = describe_event
        self._produced: list[tuple[ProducedCommand, CallSite | None]] = []
        # Of the last activation's commands, in their order.
        self._sites: list[CallSite | None] = []
        self._unrecorded: deque[ProducedCommand] = deque()
        self._is_closed = False
        self._fault: Exception | None = None

    def add(self, command: ProducedCommand) -> None:
        """The code asked for this; in vain, once it has ended the run."""
        if not self._is_closed:
            self._produced.append((command, find_call_site()))

    def close(self, command: ProducedCommand, site: CallSite | None = None) -> None:
        """The code ends the run with this. The step in which it does so may go on for a while: a
        signal handler that fails has a caller.

        Args:
            command: The run's last.
            site: Where the code asked for it, if it said so before now.
        """
        if not self._is_closed:
            self._produced.append((command, site or find_call_site()))
        self._is_closed = True

    def void(self, fault: Exception) -> None:
        """The code was told of this, and may catch it; but what it asks for must not go out."""
        if self._fault is None:
            self._fault = fault

    def seal(self) -> list[ProducedCommand]:
        """End the activation: its commands, without the withdrawn ones, now await their events.

        Raises:
            Exception: They are void; this is why.
        """
        if self._fault is not None:
            raise self._fault
        kept = [(command, site) for command, site in self._produced if not command.is_withdrawn]
        self._produced.clear()
        sealed = [command for command, _ in kept]
        self._sites = [site for _, site in kept]
        self._unrecorded.extend(sealed)
        return sealed

    def site_of(self, index: int) -> str:
        """Where the code gave a command of the last activation, as `file:line in function`;
        `unknown` if that is no line of its own.
        """
        return describe_site(self._sites[index] if index < len(self._sites) else None)

    def match(self, event: HistoryEvent) -> None:
        """Take an event that a command caused.

        Raises:
            NondeterminismError: The next command is another one, or there is none.
        """
        if not self._unrecorded:
            raise self._disagreement(event, "did nothing here")
        command = self._unrecorded.popleft()
        if command.event_type != event.event_type or not command.is_recorded_by(event):
            raise self._disagreement(event, command.describe())
        command.mark_recorded(event)

    def expects(self, event: HistoryEvent) -> bool:
        """Whether `match` would take the event."""
        if not self._unrecorded:
            return False
        command = self._unrecorded[0]
        return command.event_type == event.event_type and command.is_recorded_by(event)

    def check_all_recorded(self, next_event: HistoryEvent | None) -> None:
        """The history has no more command events for the last activation.

        Args:
            next_event: The event that it has instead; None at its end.

        Raises:
            NondeterminismError: The code gave more commands than that.
        """
        if not self._unrecorded:
            return
        produced = self._unrecorded[0].describe()
        if next_event is None:
            raise NondeterminismError(0, "", "nothing more", produced)
        raise self._disagreement(next_event, produced)

    def _disagreement(self, event: HistoryEvent, produced: str) -> NondeterminismError:
        return NondeterminismError(
            event.event_id, event_type_name(event.event_type), self._describe_event(event), produced
        )


def event_type_name(event_type: int) -> str:
    """The type's name without its prefix; its number where this version does not know it."""
    try:
        return EventType.Name(event_type).removeprefix("EVENT_TYPE_")  # type: ignore[arg-type]
    except ValueError:
        return str(event_type)
