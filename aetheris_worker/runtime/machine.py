"""What a machine is, to the drivers: the events that it knows, and what they do to a run's code.

The drivers (`replay`, `commands`) know only this form, and find the machines in `registry`. What a
machine keeps of a run is a part of the run (`parts`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVarTuple

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.parts import Parts

Ts = TypeVarTuple("Ts")


class RunCode(Protocol):
    """The user's code, as events reach it."""

    def create(self, started: HistoryEvent) -> None:
        """The run's first event: make the instance, before anything else runs."""
        ...

    def call_soon(self, callback: Callable[[*Ts], object], *arguments: *Ts) -> None:
        """Call it in the code's own context, behind what has been asked for before."""
        ...

    def cancel(self) -> None:
        """Cancel the run method; where it has not begun, once it first waits."""
        ...


Apply = Callable[[Parts, RunCode, HistoryEvent], None]
"""What an event does."""

Take = Callable[[Parts, RunCode, HistoryEvent], bool]
"""Takes an event of a command that need not be the next one's; whether it did."""

Describe = Callable[[HistoryEvent], str]
"""What the event of a command records, in the words that `ProducedCommand.describe` uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """One machine: what there is of it, each part optional.

    Attributes:
        name: For people.
        commands: The events that are there because the code gave a command, by type. Each is
            compared with the next command.
        takes: Of these, those that may be there without the next command: asked first.
        events: What the others do, by type.
        end_activation: Called when the code has given control back, and its commands are settled.
        ignored: Types of events that the code never learns of.
    """

    name: str
    commands: Mapping[int, Describe] = field(default_factory=dict[int, Describe])
    takes: Mapping[int, Take] = field(default_factory=dict[int, Take])
    events: Mapping[int, Apply] = field(default_factory=dict[int, Apply])
    ignored: frozenset[int] = frozenset()
    end_activation: Callable[[Parts], None] | None = None
