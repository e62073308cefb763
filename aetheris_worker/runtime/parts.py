"""What machines keep of a run, by its type. A machine that the code does not use has nothing, and
costs nothing.

Invariant: a part does not refer to its run or to these parts, but for the loop, whose way back is
cut when it is taken down. So a run that is over is freed at once.
"""

from dataclasses import dataclass
from typing import TypeVar, cast

from aetheris_client.converter import DataConverter
from aetheris_worker.runtime.commands import CommandLog
from aetheris_worker.runtime.loop import WorkflowLoop


@dataclass(frozen=True, slots=True)
class RunScope:
    """What all machines need of their run."""

    loop: WorkflowLoop
    commands: CommandLog
    converter: DataConverter


class RunPart:
    """What one machine keeps of a run."""

    def __init__(self, scope: RunScope) -> None:
        self.scope = scope

    @property
    def is_waiting(self) -> bool:
        """The code may wait for an event of the machine's."""
        return False


P = TypeVar("P", bound=RunPart)


class Parts(dict[type, object]):
    """At most one of each type."""

    __slots__ = ("_scope",)

    def __init__(self, scope: RunScope) -> None:
        super().__init__()
        self._scope = scope

    def find(self, type_: type[P]) -> P | None:
        """The part; None if there is none."""
        return cast("P | None", self.get(type_))

    def make(self, type_: type[P]) -> P:
        """The part; a new one if there was none."""
        part = self.get(type_)
        if part is None:
            part = self[type_] = type_(self._scope)
        return cast("P", part)
