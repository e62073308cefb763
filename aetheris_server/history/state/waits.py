"""Why a run waits: what for, since when, and until when. Follows from its state and from what
workers have of it.
"""

from datetime import datetime

from aetheris.api.v1 import workflow_pb2
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.run import RunState


def wait_reasons(
    state: RunState, inflight: Inflight, now: datetime
) -> list[workflow_pb2.WaitReason]:
    """All that an open run waits for, in the order of the machines; at least one, none for a run
    that has closed.
    """
    if not state.is_open:
        return []
    reasons = [reason for waits in RUN_MACHINES.waits for reason in waits(state, inflight, now)]
    return reasons or [workflow_pb2.WaitReason(kind=workflow_pb2.WAIT_KIND_SIGNAL)]
