"""How a state machine of the runtime moves."""

from collections.abc import Mapping
from enum import IntEnum
from typing import TypeVar

from aetheris_worker.runtime.errors import HistoryError

S = TypeVar("S", bound=IntEnum)
I = TypeVar("I", bound=IntEnum)  # noqa: E741 - input


def next_state(table: Mapping[tuple[S, I], S], state: S, cause: I, subject: str) -> S:
    """The state that the table gives for the cause.

    Raises:
        HistoryError: The table has no such edge: the events contradict each other.
    """
    following = table.get((state, cause))
    if following is None:
        raise HistoryError(f"{subject}: {cause.name} is impossible in state {state.name}")
    return following
