"""Markers, by whose they are."""

from collections.abc import Mapping
from typing import Final

from aetheris.api.v1 import history_pb2
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.machines import local_activity, patch, side_effect
from aetheris_worker.runtime.markers import MarkerKind
from aetheris_worker.runtime.parts import Parts

_KINDS: Final[Mapping[str, MarkerKind]] = {
    kind.name: kind for kind in (side_effect.KIND, patch.KIND, local_activity.KIND)
}


def _describe(event: HistoryEvent) -> str:
    name = event.marker_recorded_event_attributes.marker_name
    kind = _KINDS.get(name)
    return f"marker {name!r}" if kind is None else kind.describe(event)


def _take(parts: Parts, code: RunCode, event: HistoryEvent) -> bool:
    kind = _KINDS.get(event.marker_recorded_event_attributes.marker_name)
    return kind is not None and kind.take is not None and kind.take(parts, code, event)


MACHINE: Final = Machine(
    name="marker",
    commands={history_pb2.EVENT_TYPE_MARKER_RECORDED: _describe},
    takes={history_pb2.EVENT_TYPE_MARKER_RECORDED: _take},
    end_activation=local_activity.end_activation,
)
