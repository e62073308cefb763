"""Children: runs that the run's code has started, and whose end it is told of.

    none ──initiated──► initiated ──started──► started ──closed──► none
                            ├──────── start failed ──────────────► none
                            └──closed (told before the start)────► none

The start is a call that is owed from *initiated* on. The child tells its end, or that of its chain,
by a call of its own; where that overtakes the answer to the start, both events are written at once.

When the run closes, what it still owes its children follows from their policies:

    child        policy                    owed
    initiated    any                       the start, for it may have been called; then as below
    started      TERMINATE, REQUEST_CANCEL that, to whatever run of its chain is open
    started      ABANDON                   nothing

A child that was initiated by the very decision that closes the run has not been called, and is not
started, unless it is to be abandoned. What a closed run learns is noted in facts.
"""

from aetheris.api.v1 import command_pb2, history_pb2
from aetheris_server.history.state.machine import Machine, OnEvent, OnFact
from aetheris_server.history.state.machines.child import calls, endings, fold, views
from aetheris_server.history.state.machines.child.commands import start
from aetheris_server.history.state.machines.child.values import NAME

MACHINE = Machine(
    name=NAME,
    commands={command_pb2.COMMAND_TYPE_START_CHILD_WORKFLOW_EXECUTION: start},
    events={
        history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED: OnEvent(
            fold.initiated, obligations=calls.of_initiated
        ),
        history_pb2.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_FAILED: OnEvent(
            fold.start_failed, finish=endings.finish
        ),
        history_pb2.EVENT_TYPE_CHILD_WORKFLOW_EXECUTION_STARTED: OnEvent(
            fold.started, finish=endings.finish_started
        ),
        **{
            event_type: OnEvent(fold.closed, finish=endings.finish)
            for event_type in endings.CLOSE_EVENTS.values()
        },
    },
    own_fact=OnFact(fold.noted, obligations=calls.of_fact),
    owes=calls.owes,
    obligations=calls.obligations,
    closed_owes=calls.closed_owes,
    closed_obligations=calls.closed_obligations,
    answered={"start_child": endings.start_answered, "close_child": endings.close_answered},
    close=fold.close,
    save_part=views.save,
    load_part=views.load,
    describe=views.describe,
    waits=views.waits,
)
