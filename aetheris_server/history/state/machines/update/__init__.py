"""Updates: requests to the run's code that have an outcome.

    none ──a request──► admitted ──accepted──► open ──completed──► completed
                           │                     └──the run closes──► abandoned: to its caller a
                           ├──rejected──► none                        failure, for the code no more
                           └──the run closes──► none

*Admitted* is in the memory of the host alone (`runs/updates.py`), so that one that is rejected
leaves nothing behind. The code judges it in a workflow task. Where none is pending, one is given
out that is there for its updates alone, and which no record tells of: a speculative one.

    what happens to a speculative task    what comes of it
    all of its updates are rejected       it has never been: others get its ids
    an update is accepted                 its events are written with the decision, as of any other
    the code has run otherwise            the same, without events of updates
    events come meanwhile                 they are buffered; if all updates are rejected, they get
                                          their ids, and a workflow task of their own is scheduled
    it fails, or times out                its events are written; the next attempt is a durable one,
                                          and brings the updates again
    its answer is repeated                NOT_FOUND; the worker forgets the run
    its worker was not reached            it is given out again, to anybody
    the run is closed from outside        it has never been
    the host dies, the shard moves        it has never been, the updates are forgotten, and their
                                          callers ask again; what was buffered is on disk, and has a
                                          workflow task

Accepted once per id for the life of the run: an id that is known answers with what became of it.
"""

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris_server.history.state.machine import Machine, OnEvent
from aetheris_server.history.state.machines.update import fold
from aetheris_server.history.state.machines.update.commands import take_step

MACHINE = Machine(
    name="update",
    commands={command_pb2.COMMAND_TYPE_PROTOCOL_MESSAGE: take_step},
    events={
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: OnEvent(fold.accepted),
        history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_COMPLETED: OnEvent(fold.completed),
    },
    save_part=fold.save,
    load_part=fold.load,
    describe=fold.describe,
)
