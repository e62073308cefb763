"""What is kept of a run's updates."""

from dataclasses import dataclass, field
from datetime import datetime

from aetheris_server.history.state.run import RunState

UPDATE_BYTES = 256
"""What one takes in memory beside its id and its name, about."""


@dataclass(frozen=True, slots=True)
class OpenUpdate:
    """One that was accepted and has no outcome."""

    update_id: str
    name: str
    accepted_event_id: int
    accepted_time: datetime


@dataclass(frozen=True, slots=True)
class CompletedUpdate:
    """One whose outcome is in the history: in that event."""

    update_id: str
    completed_event_id: int


@dataclass(slots=True)
class Updates:
    """All of a run that were ever accepted, by id; a run without any has no such part."""

    open: dict[str, OpenUpdate] = field(default_factory=dict[str, OpenUpdate])
    completed: dict[str, CompletedUpdate] = field(default_factory=dict[str, CompletedUpdate])

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.open) + len(self.completed)

    def find(self, update_id: str) -> OpenUpdate | CompletedUpdate | None:
        """The one of that id; None if none was accepted."""
        return self.open.get(update_id) or self.completed.get(update_id)


def find_update(state: RunState, update_id: str) -> OpenUpdate | CompletedUpdate | None:
    """The run's update of that id; None if none was accepted."""
    updates = state.parts.find(Updates)
    return updates.find(update_id) if updates is not None else None


def open_updates(state: RunState) -> list[OpenUpdate]:
    """Those without an outcome, in the order in which they were accepted."""
    updates = state.parts.find(Updates)
    return list(updates.open.values()) if updates is not None else []
