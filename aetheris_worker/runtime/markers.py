"""Markers: what code has found out for itself, kept in the history for replay.

The server looks at none of it. A marker's name says whose it is; what it holds beside payloads of
users is JSON, whatever the run's data converter makes of values.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.common_pb2 import Payload, Payloads
from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.errors import HistoryError
from aetheris_worker.runtime.machine import Describe, Take

DATA: Final = "data"
"""Under this name in the details: what the machine itself notes, a JSON object."""

_ENCODING: Final = {"encoding": b"json/plain"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkerKind:
    """The markers of one name.

    Attributes:
        name: In histories, so it never changes.
        take: Of those that may be there without the next command; see `Machine`.
    """

    name: str
    describe: Describe
    take: Take | None = None


@dataclass(frozen=True, slots=True)
class RecordMarkerCommand:
    """Keep it.

    Attributes:
        name: Whose it is.
        data: Tells it from others of the name, by `key`.
        key: The names in `data` that do.
        description: For `describe`.
    """

    name: str
    data: Mapping[str, object]
    key: str
    description: str
    details: Mapping[str, Payloads | None] | None = None

    @property
    def event_type(self) -> int:
        return history_pb2.EVENT_TYPE_MARKER_RECORDED

    @property
    def is_withdrawn(self) -> bool:
        return False

    def to_proto(self) -> Command:
        return marker_command(self.name, self.data, self.details or {})

    def is_recorded_by(self, event: HistoryEvent) -> bool:
        return (
            event.marker_recorded_event_attributes.marker_name == self.name
            and read_data(event).get(self.key) == self.data[self.key]
        )

    def mark_recorded(self, event: HistoryEvent) -> None:
        """There is nothing to move: the code has gone on with it long ago."""

    def describe(self) -> str:
        return self.description


def marker_command(
    name: str,
    data: Mapping[str, object],
    details: Mapping[str, Payloads | None],
    failure: Failure | None = None,
) -> Command:
    """The command that records a marker."""
    command = Command(command_type=command_pb2.COMMAND_TYPE_RECORD_MARKER)
    attributes = command.record_marker_command_attributes
    attributes.marker_name = name
    note = attributes.details[DATA].payloads.add()
    note.CopyFrom(Payload(metadata=_ENCODING, data=json.dumps(data).encode()))
    for key, payloads in details.items():
        if payloads is not None:
            attributes.details[key].CopyFrom(payloads)
    if failure is not None:
        attributes.failure.CopyFrom(failure)
    return command


def read_data(event: HistoryEvent) -> Mapping[str, Any]:
    """What the machine has noted in a marker.

    Raises:
        HistoryError: It is not what this worker writes.
    """
    details = event.marker_recorded_event_attributes.details
    # A map of messages makes an entry of what is only looked up.
    payloads = details[DATA].payloads if DATA in details else None
    try:
        data: object = json.loads(payloads[0].data) if payloads else None
    except ValueError as error:
        raise _unreadable(event) from error
    if not isinstance(data, dict):
        raise _unreadable(event)
    return cast(dict[str, Any], data)


def read_field(event: HistoryEvent, field: str, accepts: Callable[[object], bool]) -> Any:
    """One value of that.

    Raises:
        HistoryError: It is not there, or not of the kind.
    """
    value = read_data(event).get(field)
    if not accepts(value):
        raise _unreadable(event)
    return value


def _unreadable(event: HistoryEvent) -> HistoryError:
    name = event.marker_recorded_event_attributes.marker_name
    return HistoryError(f"event {event.event_id}: the marker {name!r} cannot be read")
