"""Workflow tasks. Of how they went the code learns nothing: `replay` cuts the history at them.

Where one ends because the run begins as another one did, the events before are the other's: from
there on chance is this run's own.
"""

from typing import Final

from aetheris.api.v1 import history_pb2
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.parts import Parts
from aetheris_worker.runtime.random_numbers import RandomNumbers


def _failed(parts: Parts, _: RunCode, event: HistoryEvent) -> None:
    failed = event.workflow_task_failed_event_attributes
    if failed.cause == history_pb2.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW:
        parts.make(RandomNumbers).begin_anew(failed.new_run_id)


MACHINE: Final = Machine(
    name="workflow_task",
    events={history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED: _failed},
    ignored=frozenset(
        {
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED,
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
        }
    ),
)
