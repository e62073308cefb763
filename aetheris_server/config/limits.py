"""The limits that a namespace may have of its own: their names, and how far each may go."""

from collections.abc import Mapping
from typing import Final

from aetheris_server.config.sections import LimitSettings

_MIB = 1024 * 1024
_PENDING: Final = (1, 100_000)

NAMESPACE_LIMITS: Final[Mapping[str, tuple[int, int]]] = {
    "payload_max_bytes": (256, 8 * _MIB),
    "id_max_bytes": (36, 1_000),
    "history_max_events": (100, 10_000_000),
    "suggest_continue_events": (10, 10_000_000),
    "suggest_continue_bytes": (1024, 1024 * _MIB),
    "max_signals": (1, 1_000_000),
    "max_pending_activities": _PENDING,
    "max_pending_timers": _PENDING,
    "max_pending_children": _PENDING,
    "max_pending_external_signals": _PENDING,
    "max_pending_external_cancels": _PENDING,
    "max_open_updates": (1, 1_000),
    "max_updates": (1, 1_000_000),
}
"""By name in `LimitSettings`: the least and the most."""

CAPPED_LIMITS: Final = frozenset({"payload_max_bytes", "id_max_bytes"})
"""Of these a namespace can only have less than the server: requests are held to the server's before
it is known whose they are.
"""


def limits_of_namespace(server: LimitSettings, own: Mapping[str, int]) -> LimitSettings:
    """The server's limits with a namespace's own in their place; those of a newer program are left
    out.
    """
    update = {name: value for name, value in own.items() if name in NAMESPACE_LIMITS}
    for name in CAPPED_LIMITS & update.keys():
        update[name] = min(update[name], getattr(server, name))
    return server.model_copy(update=update) if update else server
