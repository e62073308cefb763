"""One HTTP connection: uvicorn's, with bounds on what a slow or silent client may hold.

waits for a request    until it is whole, head and body: RECEIVE_TIMEOUT; after an answer, for its
                       first byte, uvicorn's own keep-alive timeout
sends an answer        until the kernel has taken all that was written: SEND_TIMEOUT
one too many           of MAX_CONNECTIONS + 1, the one that has waited longest for a request is cut

A connection over a bound is cut without an answer.
"""

import asyncio
import time
from collections.abc import Iterable
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

RECEIVE_TIMEOUT = 10.0
SEND_TIMEOUT = 10.0
# Each is a file descriptor, which the stores and gRPC need too.
MAX_CONNECTIONS = 256
_UNFINISHED = (h11.IDLE, h11.SEND_BODY)


class BoundedConnection(H11Protocol):
    """A connection that its client cannot keep open by doing nothing, or little."""

    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _waits_since = 0.0

    def connection_made(  # pyright: ignore[reportIncompatibleMethodOverride] - as uvicorn's
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        # So that `pause_writing` is called for whatever the kernel does not take at once.
        transport.set_write_buffer_limits(high=0)
        self._expect_request()
        if len(self.connections) > MAX_CONNECTIONS:
            _find_idlest(cast("set[BoundedConnection]", self.connections), self).cut()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_waiting:
            self._expect_request()
        else:
            self._receiving = _cancel(self._receiving)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._receiving = _cancel(self._receiving)
        self._sending = _cancel(self._sending)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._sending = self.loop.call_later(SEND_TIMEOUT, self.cut)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._sending = _cancel(self._sending)

    @property
    def is_waiting(self) -> bool:
        """Whether it is open, and a request is awaited or has come in part."""
        return not self.transport.is_closing() and self.conn.their_state in _UNFINISHED

    @property
    def waits_since(self) -> float:
        """When it began to wait for its newest request, by the clock for intervals."""
        return self._waits_since

    def cut(self) -> None:
        """Close it at once; what was not sent is dropped."""
        self.transport.abort()

    def _expect_request(self) -> None:
        if self._receiving is None:
            # Finer than the loop's time, by which many may have begun at once.
            self._waits_since = time.monotonic()
            self._receiving = self.loop.call_later(RECEIVE_TIMEOUT, self.cut)


def _find_idlest(
    connections: Iterable[BoundedConnection], newest: BoundedConnection
) -> BoundedConnection:
    """The connection that has waited longest for a request; the newest if all others have one."""
    waiting = (connection for connection in connections if connection.is_waiting)
    return min(waiting, key=lambda connection: connection.waits_since, default=newest)


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
