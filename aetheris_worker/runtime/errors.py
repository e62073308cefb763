"""What the runtime raises.

All derive from AetherisError, but for what workflow code must not swallow:

    AetherisError
    ├── NondeterminismError      the code did not repeat what the history says it did
    ├── HistoryError             the history itself makes no sense
    ├── ForbiddenCallError       workflow code asked the loop for I/O or threads
    ├── DeadlockError            workflow code did not give control back
    ├── StrayError               workflow code raised what is not an Exception
    └── ReadOnlyError            a query handler tried to change something
    BaseException
    ├── RunEvictedError          the run leaves the cache; its coroutines are taken down
    └── ContinueAsNewError       the code goes on in a new run
"""

import asyncio
from typing import Final

from aetheris.api.v1.command_pb2 import ContinueAsNewWorkflowExecutionCommandAttributes
from aetheris_client.errors import AetherisError
from aetheris_worker.runtime.call_site import CallSite


class NondeterminismError(AetherisError):
    """Workflow code, run again from its history, did something else than the history records.

    Attributes:
        event_id: The event where they part; 0 where the history ends before.
        event_type: Its type, for example `TIMER_STARTED`; empty where the history ends before.
        recorded: What the history has there, for people.
        produced: What the code did instead, for people.
    """

    def __init__(self, event_id: int, event_type: str, recorded: str, produced: str) -> None:
        where = f"event {event_id} ({event_type})" if event_id else "the end of the history"
        super().__init__(f"nondeterminism at {where}: history has {recorded}; the code {produced}")
        self.event_id = event_id
        self.event_type = event_type
        self.recorded = recorded
        self.produced = produced


class HistoryError(AetherisError):
    """The events are not a history that this runtime can follow: a server's or a caller's bug."""


class ForbiddenCallError(AetherisError):
    """Workflow code called something that has no deterministic answer.

    Attributes:
        call: What it called, for example `loop.create_connection`.
        call_site: Where, as `file:line in function`.
    """

    def __init__(self, call: str, call_site: str, instead: str) -> None:
        super().__init__(f"workflow code may not call {call} (at {call_site}): {instead}")
        self.call = call
        self.call_site = call_site


def fault_behind(error: Exception) -> Exception:
    """The code's fault that made a converter fail, where that is no fault of the value; else the
    error itself.
    """
    return error.__cause__ if isinstance(error.__cause__, ForbiddenCallError) else error


class DeadlockError(AetherisError):
    """Workflow code blocked, or computed for too long.

    Attributes:
        stack: Where it was, its own innermost line first.
    """

    def __init__(self, label: str, seconds: float, stack: str) -> None:
        super().__init__(
            f"potential deadlock: workflow code of {label} has not given control back for "
            f"{seconds:.1f} s. It is at:\n{stack}"
        )
        self.stack = stack


class ReadOnlyError(AetherisError):
    """A query handler, a condition or a side effect tried to change the run. `call` is what it
    called.
    """

    def __init__(self, call: str) -> None:
        super().__init__(
            f"{call} is not allowed here: queries, conditions and side effects only look"
        )
        self.call = call


class StrayError(AetherisError):
    """Workflow code raised something that is not an Exception: SystemExit, or CancelledError though
    nobody asked the run to cancel. It is the cause; outside the run it would end the worker.
    """

    def __init__(self, cause: BaseException) -> None:
        if isinstance(cause, asyncio.CancelledError):
            what = "was cancelled without a request to cancel the run"
        else:
            what = f"raised {cause!r}, which is not an Exception"
        super().__init__(f"workflow code {what}")


class RunEvictedError(BaseException):
    """The run leaves this worker's memory. Not an Exception, so that workflow code does not swallow
    it; whatever code does while it passes has no effect on the run.
    """


class ContinueAsNewError(BaseException):
    """The code closes its run and goes on in a new one. Not an Exception, so that code does not
    swallow it on the way out of the run method.

    Attributes:
        attributes: Of the command.
        site: The line that asked for it.
    """

    def __init__(
        self, attributes: ContinueAsNewWorkflowExecutionCommandAttributes, site: CallSite | None
    ) -> None:
        super().__init__("the run continues as new")
        self.attributes = attributes
        self.site = site


PASSING: Final = (RunEvictedError, GeneratorExit, KeyboardInterrupt)
"""Not workflow code's own doing: the run is taken down, or the process is."""
