"""The machines of a run's code, and the tables by which drivers find what each has for an event.

A new machine is a module in `machines` and a line in `RUN_MACHINES`.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.commands import event_type_name
from aetheris_worker.runtime.machine import Apply, Describe, Machine, Take
from aetheris_worker.runtime.machines import (
    activity,
    cancellation,
    child,
    external,
    lifecycle,
    marker,
    properties,
    signal,
    timer,
    update,
    workflow_task,
)

V = TypeVar("V")


class Registry:
    """The tables of some machines, made once. The attributes are named like the parts in `Machine`.

    Raises:
        ValueError: Two machines claim the same event.
    """

    def __init__(self, machines: Iterable[Machine]) -> None:
        machines = tuple(machines)
        owners: dict[int, str] = {}
        self.commands: Mapping[int, Describe] = _merge(owners, machines, lambda m: m.commands)
        self.takes: Mapping[int, Take] = _merge({}, machines, lambda m: m.takes)
        self.events: Mapping[int, Apply] = _merge(owners, machines, lambda m: m.events)
        self.end_activation = tuple(
            machine.end_activation for machine in machines if machine.end_activation is not None
        )
        self.ignored = frozenset(_merge(owners, machines, lambda m: dict.fromkeys(m.ignored, True)))

    def describe(self, event: HistoryEvent) -> str:
        """What the event of a command records, for people."""
        describe = self.commands.get(event.event_type)
        if describe is not None:
            return describe(event)
        return event_type_name(event.event_type).lower().replace("_", " ")


def _merge(
    owners: dict[int, str],
    machines: Iterable[Machine],
    table_of: Callable[[Machine], Mapping[int, V]],
) -> dict[int, V]:
    merged: dict[int, V] = {}
    for machine in machines:
        for event_type, value in table_of(machine).items():
            if event_type in owners:
                raise ValueError(
                    f"the machines {owners[event_type]} and {machine.name} both claim the event "
                    f"{event_type_name(event_type)}"
                )
            owners[event_type] = machine.name
            merged[event_type] = value
    return merged


RUN_MACHINES: Final = Registry(
    (
        lifecycle.MACHINE,
        workflow_task.MACHINE,
        timer.MACHINE,
        activity.MACHINE,
        signal.MACHINE,
        update.MACHINE,
        cancellation.MACHINE,
        marker.MACHINE,
        child.MACHINE,
        external.MACHINE,
        properties.MACHINE,
    )
)
"""Those of this program."""
