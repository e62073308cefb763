"""Requests to cancel the run: its run method is cancelled like any task of asyncio."""

from typing import Final

from aetheris.api.v1 import history_pb2
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_worker.runtime.machine import Machine, RunCode
from aetheris_worker.runtime.parts import Parts


def _requested(_: Parts, code: RunCode, __: HistoryEvent) -> None:
    code.cancel()


MACHINE: Final = Machine(
    name="cancellation",
    events={history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_CANCEL_REQUESTED: _requested},
)
