"""Workflow tasks. Of how they went the code learns nothing: `replay` cuts the history at them."""

from typing import Final

from aetheris.api.v1 import history_pb2
from aetheris_worker.runtime.machine import Machine

MACHINE: Final = Machine(
    name="workflow_task",
    ignored=frozenset(
        {
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED,
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED,
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED,
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
            history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED,
        }
    ),
)
