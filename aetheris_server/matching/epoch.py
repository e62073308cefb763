"""Notices that Redis has lost what it held.

Redis keeps a random value, the epoch, beside the backlog. If it is missing or another than before,
or the server is not the one that was asked before, tasks may be lost: a restarted or promoted
server may have come back with an old copy, epoch included. A process that finds no epoch when it
starts cannot know whether there was one, and counts that as a loss.
"""

import secrets
from collections.abc import Callable

from aetheris_server.matching.redis_scripts import Scripts


def _ignore() -> None:
    pass


class Epoch:
    """What one process knows of the epoch.

    Attributes:
        on_suspicion: Called when a value other than the known one was seen; `check` decides.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self._known: tuple[bytes, str] | None = None
        self.on_suspicion: Callable[[], None] = _ignore

    def observe(self, value: bytes | None) -> None:
        """A call has read the epoch along the way."""
        if self._known is not None and value != self._known[0]:
            self.on_suspicion()

    async def renew(self) -> None:
        """A part is lost: have every process find out, by a new epoch, that tasks may be lost.

        Raises:
            StorageUnavailableError: Redis does not answer; nothing is decided.
        """
        await self._scripts.replace_epoch(secrets.token_hex(16))

    async def check(self) -> bool:
        """Whether tasks may have been lost since the last check; sets the epoch if there is none.

        Raises:
            StorageUnavailableError: Redis does not answer; nothing is decided.
        """
        candidate = secrets.token_hex(16)
        found = await self._scripts.mark_epoch(candidate)
        before, self._known = self._known, found
        if before is None:
            return found[0] == candidate.encode()
        return found != before
