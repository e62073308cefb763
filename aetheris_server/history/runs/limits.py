"""What the runs of each namespace are held to: the server's limits, and those of its own.

Read anew every two seconds, by one statement with a row for each namespace that has some.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import fields

from aetheris_server.config import LimitSettings, limits_of_namespace
from aetheris_server.errors import AetherisError
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.loops import is_cancelled, pause
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

_INTERVAL = 2.0

LoadLimits = Callable[[], Awaitable[Mapping[str, Mapping[str, int]]]]
"""The namespaces' own limits, by namespace id and name."""


class NamespaceLimits:
    """See the module. Until they have been read, all have the server's.

    Attributes:
        server: Those of a namespace that has none of its own.
    """

    def __init__(
        self, server: LimitSettings, load: LoadLimits, interval: float = _INTERVAL
    ) -> None:
        self.server = to_run_limits(server)
        self._settings = server
        self._load = load
        self._interval = interval
        self._own: Mapping[str, RunLimits] = {}

    def of(self, namespace_id: str) -> RunLimits:
        """What a run of the namespace is held to now."""
        return self._own.get(namespace_id, self.server)

    async def run(self) -> None:
        """Read them until cancelled."""
        while not is_cancelled():
            try:
                self._take(await self._load())
            except AetherisError as error:
                _log.warning("the limits of namespaces could not be read", error=str(error))
            except Exception:  # noqa: BLE001 - logged whole; those that are known count on
                _log.exception("the limits of namespaces could not be taken")
            await pause(self._interval)

    def _take(self, found: Mapping[str, Mapping[str, int]]) -> None:
        self._own = {
            namespace_id: to_run_limits(limits_of_namespace(self._settings, own))
            for namespace_id, own in found.items()
        }


def to_run_limits(settings: LimitSettings) -> RunLimits:
    """Those of the settings that a run is held to."""
    known = LimitSettings.model_fields
    names = [field.name for field in fields(RunLimits) if field.name in known]
    return RunLimits(**{name: getattr(settings, name) for name in names})
