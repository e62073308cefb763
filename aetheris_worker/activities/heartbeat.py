"""Signs of life, no more of them than the server needs.

The first goes out at once. Those of the next interval are held back, and the last of them goes out
when it ends; or later, when the one before has been answered.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import Final

from aetheris.api.v1.common_pb2 import Payloads

# Of the heartbeat timeout: leaves time for the call itself.
_SHARE: Final = 0.8
_MAX_INTERVAL: Final = 60.0
_INTERVAL_WITHOUT_TIMEOUT: Final = 30.0


def interval_of(heartbeat_timeout: float) -> float:
    """Seconds between two heartbeats of one attempt, given its timeout; 0 is none."""
    if not heartbeat_timeout:
        return _INTERVAL_WITHOUT_TIMEOUT
    return min(_MAX_INTERVAL, heartbeat_timeout * _SHARE)


class Heartbeater:
    """Holds heartbeats of one attempt back. Belongs to the thread that makes it, the loop's.

    Attributes:
        last_details: Of the newest heartbeat, sent or not; None if it had none.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interval: float,
        send: Callable[[Payloads | None], None],
    ) -> None:
        self._loop = loop
        self._thread_id = threading.get_ident()
        self.last_details: Payloads | None = None
        self._interval = interval
        self._send = send
        self._timer: asyncio.TimerHandle | None = None
        self._is_held_back = False
        self._is_in_flight = False
        self._sends_details = True
        self._is_closed = False

    def beat_threadsafe(self, details: Payloads | None) -> None:
        """`beat`, from any thread."""
        if threading.get_ident() == self._thread_id:
            self.beat(details)
        else:
            self._loop.call_soon_threadsafe(self.beat, details)

    def beat(self, details: Payloads | None) -> None:
        """Send it, now or with the end of the interval."""
        self.last_details = details if self._sends_details else None
        if self._is_closed:
            return
        if self._timer is not None or self._is_in_flight:
            self._is_held_back = True
            return
        self._send_now()

    def answered(self) -> None:
        """The one on its way has been taken, or never will be."""
        self._is_in_flight = False
        if self._is_held_back and self._timer is None and not self._is_closed:
            self._send_now()

    def drop_details(self) -> bool:
        """Send one without details as soon as may be, and none with details any more; False if
        that is so already.
        """
        if not self._sends_details:
            return False
        self._sends_details = False
        self.last_details = None
        self._is_held_back = True
        # The one that was refused was no sign of life: there is no interval to wait for.
        self._stop_timer()
        return True

    def close(self) -> None:
        """Send no more: the attempt's answer says it all."""
        self._is_closed = True
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _send_now(self) -> None:
        self._is_held_back = False
        self._is_in_flight = True
        self._timer = self._loop.call_later(self._interval, self._end_interval)
        self._send(self.last_details)

    def _end_interval(self) -> None:
        self._timer = None
        if self._is_held_back and not self._is_in_flight:
            self._send_now()
