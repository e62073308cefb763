"""That something is paused, a run or an activity: since when, by whom and why."""

from dataclasses import dataclass
from datetime import datetime

from aetheris.api.v1 import workflow_pb2
from aetheris_server.history.times import from_timestamp, to_timestamp

_PAUSE_BYTES = 128


@dataclass(frozen=True, slots=True)
class Pause:
    """One pause that has not ended."""

    time: datetime
    identity: str
    reason: str

    @property
    def byte_count(self) -> int:
        """What it takes in memory, about."""
        return _PAUSE_BYTES + len(self.identity) + len(self.reason)

    def to_info(self) -> workflow_pb2.PauseInfo:
        """The same, as users see it and as snapshots have it."""
        return workflow_pb2.PauseInfo(
            pause_time=to_timestamp(self.time), identity=self.identity, reason=self.reason
        )

    @classmethod
    def from_info(cls, info: workflow_pb2.PauseInfo) -> "Pause":
        """The same, back."""
        return cls(from_timestamp(info.pause_time), info.identity, info.reason)
