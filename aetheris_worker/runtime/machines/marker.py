"""Markers: what code has found out for itself, kept in the history."""

from typing import Final

from aetheris.api.v1 import history_pb2
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.machine import Machine


def _describe(event: HistoryEvent) -> str:
    return f"marker {event.marker_recorded_event_attributes.marker_name!r}"


MACHINE: Final = Machine(
    name="marker", commands={history_pb2.EVENT_TYPE_MARKER_RECORDED: _describe}
)
