"""The lease by which this host serves its shards, renewed by a task that does nothing else.

    ── renewed ──────────── valid ───────────► valid_until ── serves nothing ──► renewed again
                                                    │
                               another host may bury this one; then it has lost every shard

It is counted from before the renewal was sent, so it ends here before it ends in the database. It
is for liveness and for reads; what keeps two owners from writing is the log.
"""

from collections.abc import Awaitable, Callable

from aetheris_server.clock import Clock
from aetheris_server.errors import UnavailableError
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.storage.hosts import LeaseRenewer
from aetheris_server.telemetry import counter, get_logger, histogram

_log = get_logger(__name__)

_SECONDS = histogram("lease_renewal_seconds", "What renewing this host's lease took.")
_FAILED = counter("failed_lease_renewals", "Renewals of this host's lease that got no answer.")

# Of the lease: what one attempt may take, so that there are several.
_ATTEMPT_SHARE = 0.3
_RETRY_INTERVAL = 0.1

Rejoin = Callable[[], Awaitable[None]]
"""Forgets all shards, and begins a new lease if there is one to be had now."""


class Lease:
    """This host's lease; none until `begin`."""

    def __init__(
        self,
        host_id: str,
        timeout: float,
        interval: float,
        renewer: LeaseRenewer,
        clock: Clock,
        rejoin: Rejoin,
    ) -> None:
        """Args:
        host_id: Of this host.
        timeout: Seconds that it is good for.
        interval: Seconds between renewals.
        renewer: Over a connection of its own; closed by `run`.
        clock: Of this host.
        rejoin: Called when the host was buried.
        """
        self._host_id = host_id
        self._timeout = timeout
        self._interval = interval
        self._renewer = renewer
        self._clock = clock
        self._rejoin = rejoin
        self._valid_until = float("-inf")
        self._steady_since = float("inf")
        self._is_lapse_known = True

    @property
    def is_valid(self) -> bool:
        """Whether nobody else can have this host's shards."""
        return self._clock.monotonic() <= self._valid_until

    @property
    def is_steady(self) -> bool:
        """Whether it has not lapsed for as long as a lease lasts.

        After a pause of the store every host is late; none should judge the others before they
        have had the time to renew theirs.
        """
        return self.is_valid and self._clock.monotonic() - self._steady_since >= self._timeout

    def begin(self, sent_at: float) -> None:
        """Count from a renewal that was sent at a moment of the clock for intervals."""
        if not self.is_valid:
            self._steady_since = sent_at
        self._is_lapse_known = False
        self._valid_until = max(self._valid_until, sent_at + self._timeout)

    async def run(self) -> None:
        """Renew until cancelled."""
        try:
            while not is_cancelled():
                is_answered = await self._try_renew()
                await pause(self._interval if is_answered else min(self._interval, _RETRY_INTERVAL))
        finally:
            self._renewer.close()

    async def _try_renew(self) -> bool:
        sent_at = self._clock.monotonic()
        try:
            with _SECONDS.time():
                is_there = await self._renewer.renew(
                    self._host_id, self._timeout, self._timeout * _ATTEMPT_SHARE
                )
            if is_there:
                self.begin(sent_at)
            else:
                self._valid_until = float("-inf")
                await self._rejoin()
            return True
        except UnavailableError as error:
            _FAILED.inc()
            self._log_failure(str(error))
        except Exception:  # noqa: BLE001 - logged whole
            # Nothing may end the renewals while there are shards.
            _log.exception("a fault in renewing the lease")
        return False

    def _log_failure(self, problem: str) -> None:
        if self.is_valid:
            _log.warning("the lease could not be renewed; trying again", error=problem)
        elif not self._is_lapse_known:
            self._is_lapse_known = True
            _log.error("the lease has run out; serving nothing until it is renewed", error=problem)
