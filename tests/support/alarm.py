"""A machine that is defined for tests alone: alarms.

    none ──a command──► set ──its time──► ringing ──silenced──► none

It takes a command and an event that this version does not serve. While an alarm rings it is a task
for whoever listens. What is not history it notes in a form of its own, and so are its values in
snapshots. No file of the server knows of it.
"""

import json
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from google.protobuf import timestamp_pb2

from aetheris.api.v1 import command_pb2, common_pb2, history_pb2, task_queue_pb2
from aetheris.api.v1.workflow_service_pb2 import DescribeWorkflowResponse
from aetheris.server.v1 import log_pb2
from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.history.state.command_checks import CommandRefusedError
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machine import Machine, OnEvent, OnFact
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.run import RunState
from aetheris_server.history.times import from_timestamp, to_timestamp

NAME = "alarm"
QUEUE = "alarms"
_ALARM_BYTES = 100


@dataclass(slots=True)
class Alarm:
    """One that has not been silenced."""

    name: str
    set_event_id: int
    ring_time: datetime
    is_ringing: bool = False


@dataclass(slots=True)
class Alarms:
    """All of a run, by name; a run without any has no such part."""

    by_name: dict[str, Alarm] = field(default_factory=dict[str, Alarm])


@dataclass(slots=True)
class Listeners:
    """Names of the alarms that somebody has taken."""

    names: set[str] = field(default_factory=set[str])


def alarms_of(state: RunState) -> list[Alarm]:
    """The run's, in the order in which they were set."""
    alarms = state.parts.find(Alarms)
    return list(alarms.by_name.values()) if alarms is not None else []


@contextmanager
def alarms_served() -> Generator[None]:
    """The drivers of this process know the machine until the block is left."""
    before = RUN_MACHINES.machines
    RUN_MACHINES.use((*before, MACHINE))
    try:
        yield
    finally:
        RUN_MACHINES.use(before)


# The command, and who listens.


def set_alarms(**seconds: float) -> command_pb2.Command:
    """The command; from each name to when it rings."""
    command = command_pb2.Command(command_type=command_pb2.COMMAND_TYPE_SCHEDULE_NEXUS_OPERATION)
    fields = command.modify_workflow_properties_command_attributes.upserted_memo.fields
    for name, value in seconds.items():
        fields[name].data = str(value).encode()
    return command


@dataclass(slots=True)
class _Set:
    """Names that earlier commands have taken."""

    names: set[str] = field(default_factory=set[str])


def _set(commands: CommandPass, command: command_pb2.Command) -> None:
    memo = command.modify_workflow_properties_command_attributes.upserted_memo
    taken = commands.parts.make(_Set).names
    for name in memo.fields:
        if name in taken or any(name == alarm.name for alarm in alarms_of(commands.state)):
            raise CommandRefusedError(
                history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_MODIFY_WORKFLOW_PROPERTIES_ATTRIBUTES,
                f"the alarm {name!r} is set",
            )
        taken.add(name)
    header = common_pb2.Header(fields=memo.fields)
    commands.draft.add(
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ADMITTED,
        history_pb2.WorkflowExecutionUpdateAdmittedEventAttributes(
            request=history_pb2.UpdateRequest(header=header)
        ),
    )


def listen(inflight: Inflight, name: str) -> None:
    """Somebody takes the alarm that rings."""
    inflight.parts.make(Listeners).names.add(name)


def decide_silenced(
    state: RunState, inflight: Inflight, name: str, now: datetime
) -> log_pb2.LogRecord:
    """The alarm has been heard; the code is told."""
    draft = Draft(state, inflight, now)
    draft.add_machine_fact(NAME, json.dumps({"silenced": name}).encode())
    draft.ensure_workflow_task()
    return draft.record


# The fold.


def _were_set(state: RunState, event: history_pb2.HistoryEvent) -> None:
    fields = event.workflow_execution_update_admitted_event_attributes.request.header.fields
    alarms = state.parts.make(Alarms)
    for name in sorted(fields):
        interval = timedelta(seconds=float(fields[name].data))
        ring_time = from_timestamp(event.event_time) + interval
        alarms.by_name[name] = Alarm(name, event.event_id, ring_time)
        state.held_bytes += _ALARM_BYTES


def _noted(state: RunState, fact: log_pb2.Fact, _time: timestamp_pb2.Timestamp) -> None:
    alarms = state.parts.make(Alarms)
    (what, name), *_ = json.loads(fact.machine_fact.data).items()
    if what == "rang":
        alarms.by_name[name].is_ringing = True
        return
    del alarms.by_name[name]
    state.held_bytes -= _ALARM_BYTES
    if not alarms.by_name:
        state.parts.drop(Alarms)


def _observe(inflight: Inflight, fact: log_pb2.Fact) -> None:
    (what, name), *_ = json.loads(fact.machine_fact.data).items()
    listeners = inflight.parts.find(Listeners)
    if what == "silenced" and listeners is not None:
        listeners.names.discard(name)
        if not listeners.names:
            inflight.parts.drop(Listeners)


def _close(state: RunState) -> None:
    state.held_bytes -= _ALARM_BYTES * len(alarms_of(state))
    state.parts.drop(Alarms)


def _save(state: RunState) -> bytes | None:
    alarms = [
        (alarm.name, alarm.set_event_id, alarm.ring_time.isoformat(), alarm.is_ringing)
        for alarm in alarms_of(state)
    ]
    return json.dumps(alarms).encode() if alarms else None


def _load(state: RunState, data: bytes) -> None:
    by_name = state.parts.make(Alarms).by_name
    for name, set_event_id, ring_time, is_ringing in json.loads(data):
        by_name[name] = Alarm(name, set_event_id, datetime.fromisoformat(ring_time), is_ringing)
        state.held_bytes += _ALARM_BYTES


# Deadlines and tasks.


def _deadlines(state: RunState, _inflight: Inflight, _now: datetime) -> Iterable[datetime]:
    return [alarm.ring_time for alarm in alarms_of(state) if not alarm.is_ringing]


def _new_deadlines(state: RunState, event: history_pb2.HistoryEvent) -> Iterable[datetime]:
    return [alarm.ring_time for alarm in alarms_of(state) if alarm.set_event_id == event.event_id]


def _ring_due(draft: Draft, state: RunState, _inflight: Inflight, _at: float) -> None:
    for alarm in alarms_of(state):
        if not alarm.is_ringing and alarm.ring_time <= draft.now:
            draft.add_machine_fact(NAME, json.dumps({"rang": alarm.name}).encode())


def _owes(state: RunState) -> bool:
    return state.parts.find(Alarms) is not None


def _obligations(state: RunState, inflight: Inflight, _now: datetime) -> Iterator[TaskRef]:
    listeners = inflight.parts.find(Listeners)
    for alarm in alarms_of(state):
        if alarm.is_ringing and (listeners is None or alarm.name not in listeners.names):
            yield _to_ref(state, alarm)


def _new_obligations(
    state: RunState, _inflight: Inflight, fact: log_pb2.Fact, _now: datetime
) -> Iterator[TaskRef]:
    (what, name), *_ = json.loads(fact.machine_fact.data).items()
    if what == "rang":
        yield from (_to_ref(state, alarm) for alarm in alarms_of(state) if alarm.name == name)


def _to_ref(state: RunState, alarm: Alarm) -> TaskRef:
    return TaskRef(
        namespace_id=state.key.namespace_id,
        workflow_id=state.key.workflow_id,
        run_id=state.key.run_id,
        task_queue_type=task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY,
        task_queue=QUEUE,
        scheduled_event_id=alarm.set_event_id,
        attempt=1,
        scheduled_time=to_timestamp(alarm.ring_time),
    )


def _describe(state: RunState, _inflight: Inflight, response: DescribeWorkflowResponse) -> None:
    memo = common_pb2.Memo()
    for alarm in alarms_of(state):
        memo.fields[alarm.name].data = b"rings" if alarm.is_ringing else b"set"
    response.workflow_execution_info.memo.MergeFrom(memo)


MACHINE = Machine(
    name=NAME,
    commands={command_pb2.COMMAND_TYPE_SCHEDULE_NEXUS_OPERATION: _set},
    events={
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ADMITTED: OnEvent(
            _were_set, deadlines=_new_deadlines
        )
    },
    own_fact=OnFact(_noted, _observe, obligations=_new_obligations),
    deadlines=_deadlines,
    decide_due=_ring_due,
    owes=_owes,
    obligations=_obligations,
    close=_close,
    save_part=_save,
    load_part=_load,
    describe=_describe,
)
