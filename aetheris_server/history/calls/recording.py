"""What came of a call, noted by the aggregate that called: from then on it does not owe it."""

from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome
from aetheris_server.errors import RequestError, RunUnreadableError, UnavailableError
from aetheris_server.history.engine.engine import Engine
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_FAILED = counter("failed_call_records", "Outcomes of calls not noted because of a fault.")


async def record_outcome(engine: Engine, call: AggregateCall, outcome: CallOutcome) -> bool:
    """Have the caller note an answer, or a refusal.

    Returns:
        Whether the call need not be sent again: what came of it is on disk, or the caller is not
        there. Where it is not known to be on disk the call is sent again, and is answered as it
        was; who sends looks then whether the caller is still this host's.
    """
    if outcome.WhichOneof("outcome") not in ("answer", "refused"):
        return False
    caller = call.caller
    key = engine.kinds.key(caller.kind, caller.namespace_id, caller.name, caller.id)
    try:
        aggregate = await engine.load(key)
        record = aggregate.decide_answered(call, outcome, engine.time_of(aggregate))
        if record is not None:
            engine.commit(aggregate, record)
        await aggregate.wait_committed()
    except UnavailableError as error:
        _log.debug("what came of a call is not noted", id=key.id, error=str(error))
        return False
    except (RequestError, RunUnreadableError) as error:
        _log.error("who called is not there, or cannot be read", id=key.id, error=str(error))
        _FAILED.inc()
        # Who can read it one day derives the call again.
        return True
    except Exception:  # noqa: BLE001 - logged whole
        # One aggregate at fault must not take along the answers to others.
        _log.exception("what came of a call could not be noted", id=key.id)
        _FAILED.inc()
        return False
    return True
