"""Markers: what the run's code notes in its history for itself.

    a command ──► recorded

A marker changes nothing and is never looked at by the server.
"""

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris_server.history.state.command_checks import check_id, check_size
from aetheris_server.history.state.command_pass import CommandPass
from aetheris_server.history.state.machine import Machine, OnEvent


def _record(commands: CommandPass, command: command_pb2.Command) -> None:
    given = command.record_marker_command_attributes
    check_id(
        given.marker_name,
        "marker_name",
        history_pb2.WORKFLOW_TASK_FAILED_CAUSE_BAD_RECORD_MARKER_ATTRIBUTES,
        commands.limits,
    )
    check_size(given, commands.limits)
    marker = history_pb2.MarkerRecordedEventAttributes(
        marker_name=given.marker_name,
        details=given.details,
        workflow_task_completed_event_id=commands.completed_id,
        header=given.header if given.HasField("header") else None,
        failure=given.failure if given.HasField("failure") else None,
    )
    commands.draft.add(history_pb2.EVENT_TYPE_MARKER_RECORDED, marker)


MACHINE = Machine(
    name="marker",
    commands={command_pb2.COMMAND_TYPE_RECORD_MARKER: _record},
    events={history_pb2.EVENT_TYPE_MARKER_RECORDED: OnEvent()},
)
