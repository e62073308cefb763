"""Where a new run begins that is taken from another one, and what of that reaches it."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from aetheris.api.v1 import workflow_service_pb2
from aetheris_client import enums


class ReapplyExclude(StrEnum):
    """What came behind the point and is not given to the new run."""

    SIGNAL = "SIGNAL"
    UPDATE = "UPDATE"
    CANCEL_REQUEST = "CANCEL_REQUEST"


@dataclass(frozen=True, slots=True)
class ResetPoint:
    """A workflow task of a run, which the new run decides anew; made by one of its methods."""

    event_id: int | None = None
    workflow_task: str | None = None
    build_id: str | None = None

    @classmethod
    def first(cls) -> "ResetPoint":
        """The first workflow task: the code begins from its start."""
        return cls(workflow_task="FIRST")

    @classmethod
    def last(cls) -> "ResetPoint":
        """The last one that was completed; where none was, the last that was started."""
        return cls(workflow_task="LAST")

    @classmethod
    def event(cls, event_id: int) -> "ResetPoint":
        """The one of an event, which is its WORKFLOW_TASK_STARTED, _COMPLETED, _FAILED or
        _TIMED_OUT.
        """
        return cls(event_id=event_id)

    @classmethod
    def build(cls, build_id: str) -> "ResetPoint":
        """The last one that a build completed."""
        return cls(build_id=build_id)

    def to_proto(self) -> workflow_service_pb2.ResetPoint:
        """As requests have it."""
        point = workflow_service_pb2.ResetPoint()
        if self.event_id is not None:
            point.event_id = self.event_id
        elif self.workflow_task is not None:
            point.workflow_task = workflow_service_pb2.WorkflowTaskPoint.Value(
                f"WORKFLOW_TASK_POINT_{self.workflow_task}"
            )
        elif self.build_id is not None:
            point.build_id = self.build_id
        return point


def excludes_to_proto(
    exclude: Collection[ReapplyExclude],
) -> list[workflow_service_pb2.ReapplyExclude.ValueType]:
    """As requests have them."""
    return [
        enums.to_proto(each, workflow_service_pb2.ReapplyExclude, "REAPPLY_EXCLUDE_")
        for each in exclude
    ]
