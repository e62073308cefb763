"""How far a run may grow."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Bounds that history holds a run to.

    Attributes:
        history_max_events: From here on only commands that close the run are taken.
        suggest_continue_events: From here on workflow tasks suggest continue-as-new.
        payload_max_bytes: Size of what one command may carry.
    """

    history_max_events: int = 200_000
    suggest_continue_events: int = 4_096
    suggest_continue_bytes: int = 4 * 1024 * 1024
    payload_max_bytes: int = 2 * 1024 * 1024
    id_max_bytes: int = 1_000
    max_pending_activities: int = 2_000
    max_pending_timers: int = 2_000
    max_signals: int = 10_000
    max_buffered_events: int = 100
