"""How far a run may grow."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class RunLimits:
    """Bounds that history holds a run to.

    Attributes:
        history_max_events: From here on only decisions that close the run, or are empty, are taken.
        suggest_continue_events: From here on workflow tasks suggest continue-as-new.
        suggest_continue_bytes: The same, by size.
        payload_max_bytes: Size of what one command may carry.
        max_signals: All that a run may ever have.
        max_open_updates: Those that wait, and those that are accepted and have no outcome.
        max_updates: All that a run may ever have accepted.
        max_buffered_events: With so many, the next signal fails the workflow task in flight.
        max_buffered_bytes: The same, by size.
        min_continue_interval: A run that continues as new sooner than this after its code began has
            its successor wait for the rest.
        max_heartbeat: How long a worker may keep a workflow task by completing it with nothing but
            the wish for the next one.
    """

    history_max_events: int = 200_000
    suggest_continue_events: int = 4_096
    suggest_continue_bytes: int = 4 * 1024 * 1024
    payload_max_bytes: int = 2 * 1024 * 1024
    id_max_bytes: int = 1_000
    max_pending_activities: int = 2_000
    max_pending_timers: int = 2_000
    max_pending_children: int = 2_000
    max_pending_external_signals: int = 2_000
    max_pending_external_cancels: int = 2_000
    max_signals: int = 10_000
    max_open_updates: int = 10
    max_updates: int = 2_000
    max_buffered_events: int = 100
    max_buffered_bytes: int = 2 * 1024 * 1024
    min_continue_interval: timedelta = timedelta(seconds=1)
    max_heartbeat: timedelta = timedelta(minutes=30)
