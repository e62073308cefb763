"""What came of a call that a run owes another one, as the run's machines note it."""

from datetime import datetime

from aetheris.server.v1 import log_pb2, run_calls_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome
from aetheris_server.history.aggregates.obligation import number_of
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.run import RunState


def decide_answered(
    state: RunState, inflight: Inflight, call: AggregateCall, outcome: CallOutcome, now: datetime
) -> log_pb2.LogRecord | None:
    """Note what came of a call; None where the run does not owe it any more."""
    asked = run_calls_pb2.RunCall.FromString(call.payload).WhichOneof("call")
    assert asked is not None
    if outcome.HasField("refused"):
        answer = run_calls_pb2.RunCallAnswer(result=run_calls_pb2.RUN_CALL_RESULT_REFUSED)
    else:
        answer = run_calls_pb2.RunCallAnswer.FromString(outcome.answer)
    draft = Draft(state, inflight, now)
    RUN_MACHINES.answered[asked](draft, state, number_of(call), answer)
    return None if draft.is_empty else draft.record
