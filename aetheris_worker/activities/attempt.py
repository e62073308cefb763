"""One running attempt, as the activity's own code reaches it.

Code finds its attempt through a context variable. Async code runs on the worker's event loop; a
plain function runs in a thread, from where everything that touches the loop is handed over to it.
"""

import contextvars
import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Protocol

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.worker_service_pb2 import ActivityTask
from aetheris_client.converter import DataConverter
from aetheris_client.errors import CancelledError
from aetheris_worker.activities.info import ActivityInfo, read_info


class CancelReason(enum.Enum):
    """Why an attempt should stop."""

    REQUESTED = "cancellation was requested"
    PAUSED = "the activity was paused"
    RESET = "the activity was reset"
    TIMED_OUT = "the attempt's time is up"
    GONE = "the server no longer waits for this attempt"
    SHUTDOWN = "the worker shuts down"


@dataclass(frozen=True, slots=True)
class CancellationDetails:
    """Why an attempt should stop; all of it that is known.

    Attributes:
        cancel_requested: Its workflow asked for it, or its run has closed.
        paused: The activity was paused: no other attempt begins before it is unpaused.
        reset: The activity was reset: the next attempt is the first again.
        timed_out: The attempt's time is up.
        gone: The server no longer waits for this attempt.
        worker_shutdown: The worker shuts down.
    """

    cancel_requested: bool = False
    paused: bool = False
    reset: bool = False
    timed_out: bool = False
    gone: bool = False
    worker_shutdown: bool = False


class Heartbeats(Protocol):
    """Where signs of life go."""

    @property
    def last_details(self) -> Payloads | None:
        """Of the newest one; on the loop's thread."""
        ...

    def beat_threadsafe(self, details: Payloads | None) -> None:
        """One more, from any thread."""
        ...

    def answered(self) -> None:
        """What became of the one on its way is known."""
        ...

    def drop_details(self) -> bool:
        """Go on without details; False if it has gone on without them before."""
        ...

    def close(self) -> None:
        """There will be no more."""
        ...


class Attempt:
    """The state of one attempt.

    Attributes:
        cancel_reason: The first; None as long as it should go on.
        was_refused: The server would not take its answer as it was.
    """

    def __init__(
        self,
        task: ActivityTask,
        namespace: str,
        task_queue: str,
        converter: DataConverter,
        heartbeats: Heartbeats,
        *,
        is_async: bool,
        is_local: bool = False,
    ) -> None:
        self.task = task
        self.cancel_reason: CancelReason | None = None
        self._cancel_reasons: set[CancelReason] = set()
        self.was_refused = False
        self.is_async = is_async
        self.is_local = is_local
        self._namespace = namespace
        self._task_queue = task_queue
        self._converter = converter
        self._heartbeats = heartbeats
        self._on_cancel: list[Callable[[], object]] = []
        # A thread may wait for it, and registers and is cancelled from different threads.
        self._lock = threading.Lock()

    @cached_property
    def info(self) -> ActivityInfo:
        """What it can know about itself."""
        return read_info(
            self.task, self._namespace, self._task_queue, self._converter, is_local=self.is_local
        )

    def heartbeat(self, details: tuple[object, ...]) -> None:
        """Say that it is alive; from any thread.

        Raises:
            CancelledError: It should stop, and its code is not async: that would have been
                cancelled by other means.
            PayloadEncodeError: A detail has no encoding.
        """
        if self.cancel_reason is not None and not self.is_async:
            raise CancelledError(self.cancel_reason.value)
        self._heartbeats.beat_threadsafe(self._converter.to_payloads(details))

    def last_details(self) -> Payloads | None:
        """What the last heartbeat said; on the loop's thread."""
        return self._heartbeats.last_details

    def heartbeat_answered(self) -> None:
        """The server has the last heartbeat, or never gets it; on the loop's thread."""
        self._heartbeats.answered()

    def drop_heartbeat_details(self) -> bool:
        """The server refuses them; False if that is known. On the loop's thread."""
        return self._heartbeats.drop_details()

    def cancel(self, reason: CancelReason) -> bool:
        """It should stop; False if it has been told so before."""
        with self._lock:
            self._cancel_reasons.add(reason)
            if self.cancel_reason is not None:
                return False
            self.cancel_reason = reason
            callbacks, self._on_cancel = self._on_cancel, []
        for callback in callbacks:
            callback()
        return True

    def cancellation_details(self) -> CancellationDetails | None:
        """Why it should stop; None as long as it should go on. From any thread."""
        with self._lock:
            reasons = frozenset(self._cancel_reasons)
        if not reasons:
            return None
        return CancellationDetails(
            cancel_requested=CancelReason.REQUESTED in reasons,
            paused=CancelReason.PAUSED in reasons,
            reset=CancelReason.RESET in reasons,
            timed_out=CancelReason.TIMED_OUT in reasons,
            gone=CancelReason.GONE in reasons,
            worker_shutdown=CancelReason.SHUTDOWN in reasons,
        )

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Have it called, once, on the loop's thread, when the attempt should stop."""
        with self._lock:
            if self.cancel_reason is None:
                self._on_cancel.append(callback)
                return
        callback()

    def close(self) -> None:
        """The attempt is over."""
        self._heartbeats.close()
        with self._lock:
            # Its task is among these, and refers to the attempt.
            self._on_cancel.clear()


CURRENT: Final[contextvars.ContextVar[Attempt]] = contextvars.ContextVar("aetheris_attempt")
