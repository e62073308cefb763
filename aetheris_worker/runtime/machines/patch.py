"""Patches: which of its versions code follows.

    called  ──nothing to repeat, or the marker is ahead──► patched      one marker for each id
            ──repeats what has no marker─────────────────► not patched

The first call decides for the whole run. A marker of `patched` must meet its call again; one of
`deprecate_patch` is passed over where the code no longer calls either.
"""

from typing import Final, cast

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.options import check_text
from aetheris_worker.runtime.activation import Activation
from aetheris_worker.runtime.machine import RunCode
from aetheris_worker.runtime.markers import MarkerKind, RecordMarkerCommand, read_data, read_field
from aetheris_worker.runtime.parts import Parts, RunPart, RunScope

NAME: Final = "patch"
_ID: Final = "id"
_DEPRECATED: Final = "deprecated"


class Patches(RunPart):
    """The patches of one run."""

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self._is_patched: dict[str, bool] = {}
        self._passed_over: set[str] = set()
        self._read_event_id = 0
        self._ahead: set[str] = set()

    def is_patched(
        self, patch_id: str, replayed: Activation | None, *, is_deprecated: bool
    ) -> bool:
        """Whether the run follows the code from the patch on; a call for it notes that it does.

        Args:
            patch_id: Any text.
            replayed: What the code repeats; None if it does not.
            is_deprecated: All code that is run from now on does.
        """
        self.scope.loop.check_writable("a patch")
        check_text("the id of a patch", patch_id)
        if not isinstance(cast(object, patch_id), str) or not patch_id:
            raise ValueError(f"the id of a patch: expected a text, found {patch_id!r}")
        known = self._is_patched.get(patch_id)
        if known is not None:
            return known
        is_noted = patch_id in self._passed_over
        is_patched = is_noted or replayed is None or patch_id in self._read_ahead(replayed)
        self._is_patched[patch_id] = is_patched
        if is_patched and not is_noted:
            data = {_ID: patch_id, _DEPRECATED: is_deprecated}
            call = f"called {'deprecate_patch' if is_deprecated else 'patched'}({patch_id!r})"
            self.scope.commands.add(RecordMarkerCommand(NAME, data, _ID, call))
        return is_patched

    def pass_over(self, event: HistoryEvent) -> bool:
        """Take the marker of a patch that the code no longer needs to call for; whether it is one.

        One that the next command is about is left to that.
        """
        if not read_data(event).get(_DEPRECATED) or self.scope.commands.expects(event):
            return False
        self._passed_over.add(_id_of(event))
        return True

    def _read_ahead(self, replayed: Activation) -> set[str]:
        if replayed.last_event_id != self._read_event_id:
            self._read_event_id = replayed.last_event_id
            self._ahead = {
                _id_of(event)
                for event in replayed.markers_ahead()
                if event.marker_recorded_event_attributes.marker_name == NAME
            }
        return self._ahead


def _id_of(event: HistoryEvent) -> str:
    return read_field(event, _ID, lambda value: isinstance(value, str))


def _take(parts: Parts, _: RunCode, event: HistoryEvent) -> bool:
    return parts.make(Patches).pass_over(event)


KIND: Final = MarkerKind(
    name=NAME, describe=lambda event: f"the patch {_id_of(event)!r}", take=_take
)
