"""Activities that this worker could run at once, and asks for along with its decisions."""

from typing import Final, Protocol

from aetheris.api.v1.command_pb2 import ScheduleActivityTaskCommandAttributes
from aetheris.api.v1.worker_service_pb2 import (
    ActivityTask,
    RespondWorkflowTaskCompletedRequest,
)

# Activities that go with the decision save a poll each, but may keep a fan-out from spreading over
# the workers: so only a few of each decision.
MAX_EAGER_ACTIVITIES: Final = 4


class EagerActivities(Protocol):
    """What becomes of activities that this worker could run at once."""

    def try_reserve(self, scheduled: ScheduleActivityTaskCommandAttributes) -> bool:
        """Keep a slot, if the activity could run here and there is one."""
        ...

    def release(self, count: int) -> None:
        """Slots kept in vain."""
        ...

    def start(self, task: ActivityTask) -> None:
        """Run it, in a slot that was kept for it."""
        ...


def reserve_eager(eager: EagerActivities, decision: RespondWorkflowTaskCompletedRequest) -> int:
    """Ask for the activities that this worker could run at once; returns how many."""
    reserved = 0
    for command in decision.commands:
        if command.HasField("schedule_activity_task_command_attributes"):
            scheduled = command.schedule_activity_task_command_attributes
            if reserved < MAX_EAGER_ACTIVITIES and eager.try_reserve(scheduled):
                scheduled.request_eager_execution = True
                reserved += 1
    return reserved
