"""Handlers that a run sets while it is under way, and what they ask."""

from collections.abc import Callable
from typing import Any

from aetheris_worker.runtime.machines.signal import SignalHandler
from aetheris_worker.runtime.machines.update import (
    UpdateBox,
    UpdateHandler,
    UpdateInfo,
    current_update,
)
from aetheris_worker.runtime.queries import QueryHandler
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


def set_query_handler(name: str, handler: Callable[..., object] | None) -> None:
    """Answer the queries of a name by this function from now on; None: by none. It only looks.

    Raises:
        ValueError: The name begins with `__`: such queries the worker answers.
    """
    if name.startswith("__"):
        raise ValueError(f"{name!r}: names of queries that begin with __ are the worker's")
    box = current_run("set_query_handler").queries
    box.set_handler(name, None if handler is None else QueryHandler(handler))


def set_dynamic_query_handler(handler: Callable[[str, list[Any]], object] | None) -> None:
    """The same for all queries that have no handler of their own; see `query(dynamic=True)`."""
    box = current_run("set_dynamic_query_handler").queries
    box.set_handler(None, None if handler is None else QueryHandler(handler, is_dynamic=True))


def set_update_handler(
    name: str,
    handler: Callable[..., object] | None,
    *,
    validator: Callable[..., None] | None = None,
) -> None:
    """Handle the updates of a name by this function, async or not, from now on; None: by none."""
    own = None if handler is None else UpdateHandler(handler, validator)
    current_run("set_update_handler").parts.make(UpdateBox).set_handler(name, own)


def set_dynamic_update_handler(
    handler: Callable[[str, list[Any]], object] | None,
    *,
    validator: Callable[[str, list[Any]], None] | None = None,
) -> None:
    """The same for all updates that have no handler of their own; see `update(dynamic=True)`."""
    own = None if handler is None else UpdateHandler(handler, validator, is_dynamic=True)
    current_run("set_dynamic_update_handler").parts.make(UpdateBox).set_handler(None, own)


def current_update_info() -> UpdateInfo | None:
    """The update whose handler or validator calls this; None where none does."""
    return current_update.get()


def all_handlers_finished() -> bool:
    """Whether no async handler is at work. `defn(waits_for_handlers=True)` waits for that by
    itself.
    """
    return current_run("all_handlers_finished").all_handlers_finished
