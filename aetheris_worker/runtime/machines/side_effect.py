"""Side effects: values that code takes from outside, once.

    none ──called──► recorded

The value goes out with the commands of the same workflow task. A replay finds it among the events
of that task, ahead of those that the code has seen, and does not call the function.
"""

import inspect
from collections.abc import Callable
from typing import Any, Final

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.signatures import signature_of
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.activation import Activation
from aetheris_worker.runtime.errors import NondeterminismError
from aetheris_worker.runtime.markers import MarkerKind, RecordMarkerCommand, read_field
from aetheris_worker.runtime.parts import RunPart, RunScope

NAME: Final = "side_effect"
_ID: Final = "id"
_RESULT: Final = "result"


class SideEffects(RunPart):
    """The side effects of one run."""

    def __init__(self, scope: RunScope) -> None:
        super().__init__(scope)
        self._count = 0
        self._read_event_id = 0
        self._recorded: dict[int, HistoryEvent] = {}

    def take(
        self, function: Callable[[], object], result_type: object, replayed: Activation | None
    ) -> Any:
        """The function's value: called now, or as it was recorded.

        Args:
            function: Called at most once, with all that workflow code may not call set free; it may
                not do anything to the run.
            result_type: What the value is decoded as; what the function is annotated with if None.
            replayed: What the code repeats; None if it does not.

        Raises:
            Exception: What the function raised, or that its value does not encode. The workflow
                task fails with it, whether or not the code catches it: nothing was recorded.
            NondeterminismError: A replay that has no value for it; the task fails with it likewise.
        """
        self.scope.loop.check_writable("a side effect")
        self._count += 1
        if result_type is None and getattr(function, "__annotations__", None):
            result_type = signature_of(function).result_type
        try:
            value = self._call(function, result_type) if replayed is None else self._find(replayed)
        except Exception as error:
            self.scope.commands.void(error)
            raise
        self.scope.commands.add(
            RecordMarkerCommand(
                NAME, {_ID: self._count}, _ID, _describe(self._count), {_RESULT: value}
            )
        )
        return self.scope.converter.from_payloads(value, [result_type])[0]

    def _call(self, function: Callable[[], object], result_type: object) -> Payloads:
        loop = self.scope.loop
        loop.read_only = True
        guard.leave(False)
        try:
            value = function()
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError(f"{function!r}: a side effect expects a function that is not async")
            return self.scope.converter.to_payloads([value], [result_type]) or Payloads()
        finally:
            guard.enter()
            loop.read_only = False

    def _find(self, replayed: Activation) -> Payloads:
        if replayed.last_event_id != self._read_event_id:
            self._read_event_id = replayed.last_event_id
            self._recorded = {
                _id_of(event): event
                for event in replayed.markers_ahead()
                if event.marker_recorded_event_attributes.marker_name == NAME
            }
        event = self._recorded.pop(self._count, None)
        if event is None:
            raise NondeterminismError(
                replayed.last_event_id,
                "WORKFLOW_TASK_STARTED",
                "no value of it behind this task",
                _describe(self._count),
            )
        return event.marker_recorded_event_attributes.details[_RESULT]


def _id_of(event: HistoryEvent) -> int:
    return read_field(event, _ID, lambda value: isinstance(value, int))


def _describe(number: int) -> str:
    return f"had side effect {number}"


KIND: Final = MarkerKind(
    name=NAME, describe=lambda event: f"the value of side effect {_id_of(event)}"
)
