"""Runs workflow classes along built histories, and says what they did in a few words."""

import json
from collections.abc import Sequence

from aetheris.api.v1.command_pb2 import Command, CommandType
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import UpdateRequest
from aetheris_client.converter import DataConverter
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.replay import RunMachine
from tests.support.history_builder import HistoryBuilder

_machines: list[RunMachine] = []


def machine_of(workflow: type, run_id: str = "run-1") -> RunMachine:
    machine = RunMachine(
        WorkflowDefinition.of(workflow),
        RunId("default", "workflow-1", run_id),
        DataConverter.default(),
    )
    _machines.append(machine)
    return machine


def evict_all() -> None:
    """What the worker does with every machine in the end."""
    while _machines:
        _machines.pop().evict()


class Session:
    """A cached run and the server that drives it: each step is one workflow task."""

    def __init__(self, workflow: type, *arguments: object) -> None:
        self.workflow = workflow
        self.history = HistoryBuilder(WorkflowDefinition.of(workflow).name, *arguments)
        self.machine = machine_of(workflow)

    def step(self, updates: Sequence[UpdateRequest] = ()) -> list[str]:
        """A task on the cached run, completed with its commands."""
        self.history.task_started()
        events = self.history.after(self.machine.last_event_id)
        commands = [command.to_proto() for command in self.machine.advance(events, updates)]
        self.history.task_completed(commands)
        return [summary(command) for command in commands]

    def replay(self) -> RunMachine:
        """The whole history on a fresh run."""
        machine = machine_of(self.workflow)
        assert machine.advance(self.history.events) == ()
        return machine

    def ask(self, query: str) -> object:
        """Ask the cached run."""
        return self.machine.query(query, Payloads())

    def result(self) -> object:
        """What the run returned."""
        return self.result_of(self.machine)

    @staticmethod
    def result_of(machine: RunMachine) -> object:
        """What another one of the run returned."""
        closing = machine._entry.closing
        assert closing is not None
        attributes = closing.to_proto().complete_workflow_execution_command_attributes
        return DataConverter.default().from_payloads(attributes.result)[0]


def summary(command: Command) -> str:
    match command.command_type:
        case CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK:
            scheduled = command.schedule_activity_task_command_attributes
            return f"activity {scheduled.activity_id} {scheduled.activity_type.name}"
        case CommandType.COMMAND_TYPE_REQUEST_CANCEL_ACTIVITY_TASK:
            requested = command.request_cancel_activity_task_command_attributes
            return f"cancel activity {requested.scheduled_event_id}"
        case CommandType.COMMAND_TYPE_START_TIMER:
            started = command.start_timer_command_attributes
            seconds = started.start_to_fire_timeout.ToTimedelta().total_seconds()
            return f"timer {started.timer_id} {seconds:g}s"
        case CommandType.COMMAND_TYPE_CANCEL_TIMER:
            return f"cancel timer {command.cancel_timer_command_attributes.timer_id}"
        case CommandType.COMMAND_TYPE_RECORD_MARKER:
            marker = command.record_marker_command_attributes
            data = json.loads(marker.details["data"].payloads[0].data)
            return f"marker {marker.marker_name} {data['id']}"
        case CommandType.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION:
            child = command.start_child_workflow_execution_command_attributes
            return f"child {child.workflow_id} {child.workflow_type.name}"
        case CommandType.COMMAND_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION:
            signal = command.signal_external_workflow_execution_command_attributes
            return f"signal {signal.signal_name} to {signal.workflow_execution.workflow_id}"
        case CommandType.COMMAND_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION:
            asked = command.request_cancel_external_workflow_execution_command_attributes
            return f"cancel {asked.workflow_execution.workflow_id}"
        case _:
            return _summary_of_run(command)


def _summary_of_run(command: Command) -> str:
    """Of one that ends the run or changes its notes."""
    match command.command_type:
        case CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION:
            return "complete"
        case CommandType.COMMAND_TYPE_FAIL_WORKFLOW_EXECUTION:
            failure = command.fail_workflow_execution_command_attributes.failure
            return f"fail {failure.message}"
        case CommandType.COMMAND_TYPE_CANCEL_WORKFLOW_EXECUTION:
            return "cancel run"
        case CommandType.COMMAND_TYPE_CONTINUE_AS_NEW_WORKFLOW_EXECUTION:
            return "continue as new"
        case CommandType.COMMAND_TYPE_MODIFY_WORKFLOW_PROPERTIES:
            memo = command.modify_workflow_properties_command_attributes.upserted_memo
            return f"memo {', '.join(sorted(memo.fields))}"
        case CommandType.COMMAND_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
            upserted = command.upsert_workflow_search_attributes_command_attributes
            names = sorted(upserted.search_attributes.indexed_fields)
            return f"search attributes {', '.join(names)}"
        case _:
            return _summary_of_update(command)


def _summary_of_update(command: Command) -> str:
    if command.command_type != CommandType.COMMAND_TYPE_PROTOCOL_MESSAGE:
        return str(command.command_type)
    step = command.protocol_message_command_attributes
    verb = "accept" if step.HasField("acceptance") else "complete"
    return f"{verb} {step.message_id}"
