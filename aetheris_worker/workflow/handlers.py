"""Signal handlers that a run sets while it is under way."""

from collections.abc import Callable
from typing import Any

from aetheris_worker.runtime.machines.signal import SignalHandler
from aetheris_worker.workflow.current_run import current_run


def set_signal_handler(name: str, handler: Callable[..., object] | None) -> None:
    """Handle the signals of a name by this function, async or not, from now on; None: by none.

    It gets at once, in order, the signals of the name that wait for a handler.
    """
    box = current_run("set_signal_handler").signals
    box.set_handler(name, None if handler is None else SignalHandler(handler))


def set_dynamic_signal_handler(
    handler: Callable[[str, list[Any]], object] | None,
) -> None:
    """The same for all signals that have no handler of their own; see `signal(dynamic=True)`."""
    box = current_run("set_dynamic_signal_handler").signals
    box.set_handler(None, None if handler is None else SignalHandler(handler, is_dynamic=True))


def all_handlers_finished() -> bool:
    """Whether no async signal handler is at work; for `wait_condition` at the end of a run."""
    return current_run("all_handlers_finished").signals.all_finished
