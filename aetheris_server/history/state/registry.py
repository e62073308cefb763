"""The machines of a run, and the tables by which the drivers find what each has for what.

A new machine is a file in `machines` and a line in `RUN_MACHINES`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.machine import Machine, OnFact
from aetheris_server.history.state.machines import (
    activity,
    cancellation,
    child,
    external,
    lifecycle,
    marker,
    options,
    parent,
    pause,
    properties,
    reset,
    signal,
    timer,
    update,
    workflow_task,
)

K = TypeVar("K")
T = TypeVar("T")
V = TypeVar("V")

_OWN_FACT = "machine_fact"


def fact_name(fact: log_pb2.Fact) -> str | None:
    """What a fact is found by in the tables; None for one that this program does not know."""
    kind = fact.WhichOneof("fact")
    return _own_name(fact.machine_fact.machine) if kind == _OWN_FACT else kind


def _own_name(machine_name: str) -> str:
    return f"{_OWN_FACT}:{machine_name}"


class Registry:
    """The tables of some machines, made once: a driver looks up an event, a fact or a command in
    one dict, and goes over only those machines that have what it asks for.

    The attributes are named like the parts in `Machine`, `OnEvent` and `OnFact`. Sequences are in
    the order of the machines: what is due is decided in that order.
    """

    def __init__(self, machines: Sequence[Machine]) -> None:
        self.use(machines)

    def use(self, machines: Sequence[Machine]) -> None:
        """Have the drivers know these machines and no others. A server never does so; tests may.

        Raises:
            ValueError: Two of them claim the same name, command, event or fact.
        """
        _merge("name", str, machines, lambda machine: {machine.name: machine})
        self.commands = _merge("command", _command_name, machines, lambda m: m.commands)
        events = _merge("event", _event_name, machines, lambda m: m.events)
        facts = _merge("fact", str, machines, _facts_of)
        self.machines = tuple(machines)
        self.closing_commands = frozenset[int]().union(*(m.closing_commands for m in machines))
        self.events = {key: on.apply for key, on in events.items()}
        self.event_observers = _present(events, lambda on: on.observe)
        self.event_deadlines = _present(events, lambda on: on.deadlines)
        self.event_obligations = _present(events, lambda on: on.obligations)
        Draft.finishes = _present(events, lambda on: on.finish)
        Draft.not_for_code = frozenset(key for key, on in events.items() if not on.is_for_code)
        self.facts = {key: on.apply for key, on in facts.items()}
        self.fact_observers = _present(facts, lambda on: on.observe)
        self.fact_deadlines = _present(facts, lambda on: on.deadlines)
        self.fact_obligations = _present(facts, lambda on: on.obligations)
        self.deadlines = _those(m.deadlines for m in machines)
        self.inflight_deadlines = _those(m.inflight_deadlines for m in machines)
        self.decide_due = _those(m.decide_due for m in machines)
        self.owes = _those(m.owes for m in machines)
        self.obligations = _those(m.obligations for m in machines)
        self.closed_owes = _those(m.closed_owes for m in machines)
        self.closed_obligations = _those(m.closed_obligations for m in machines)
        self.answered = _merge("answer", str, machines, lambda m: m.answered)
        self.take_due = _those(m.take_due for m in machines)
        self.restore = _those(m.restore for m in machines)
        self.close = _those(m.close for m in machines)
        self.save = _those(m.save for m in machines)
        self.load = _those(m.load for m in machines)
        self.find_unknown = _those(m.find_unknown for m in machines)
        self.save_parts = {m.name: m.save_part for m in machines if m.save_part is not None}
        self.load_parts = {m.name: m.load_part for m in machines if m.load_part is not None}
        self.describe = _those(m.describe for m in machines)
        self.waits = _those(m.waits for m in machines)


def _merge(
    what: str,
    name_of: Callable[[K], str],
    machines: Iterable[Machine],
    table_of: Callable[[Machine], Mapping[K, V]],
) -> dict[K, V]:
    merged: dict[K, V] = {}
    owners: dict[K, str] = {}
    for machine in machines:
        for key, value in table_of(machine).items():
            if key in owners:
                raise ValueError(
                    f"the machines {owners[key]} and {machine.name} both claim the {what} "
                    f"{name_of(key)}"
                )
            owners[key] = machine.name
            merged[key] = value
    return merged


def _facts_of(machine: Machine) -> Mapping[str, OnFact]:
    if machine.own_fact is None:
        return machine.facts
    return {**machine.facts, _own_name(machine.name): machine.own_fact}


def _command_name(command_type: int) -> str:
    return command_pb2.CommandType.Name(command_pb2.CommandType.ValueType(command_type))


def _event_name(event_type: int) -> str:
    return history_pb2.EventType.Name(history_pb2.EventType.ValueType(event_type))


def _present(table: Mapping[K, V], part_of: Callable[[V], T | None]) -> dict[K, T]:
    parts = ((key, part_of(value)) for key, value in table.items())
    return {key: part for key, part in parts if part is not None}


def _those(parts: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(part for part in parts if part is not None)


RUN_MACHINES = Registry(
    (
        lifecycle.MACHINE,
        workflow_task.MACHINE,
        timer.MACHINE,
        activity.MACHINE,
        signal.MACHINE,
        cancellation.MACHINE,
        pause.MACHINE,
        marker.MACHINE,
        properties.MACHINE,
        child.MACHINE,
        external.SIGNAL,
        external.CANCEL,
        parent.MACHINE,
        update.MACHINE,
        options.MACHINE,
        reset.MACHINE,
    )
)
"""Those of this program. The run's deadline comes first: it ends all others."""
