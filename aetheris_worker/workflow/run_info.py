"""What a run knows of itself, and time and chance as replay repeats them."""

import random as _random
import uuid as _uuid
from datetime import datetime

from aetheris_worker.runtime import info as _info
from aetheris_worker.runtime.info import WorkflowInfo
from aetheris_worker.workflow.current_run import current_run, try_current_run


def in_workflow() -> bool:
    """Whether the caller is workflow code."""
    return try_current_run() is not None


def info() -> WorkflowInfo:
    """What the run was started with."""
    return current_run("info").info


def now() -> datetime:
    """The time at which the current workflow task began, in UTC; stands still while code runs."""
    return _info.to_datetime(current_run("now").loop.now)


def time() -> float:
    """`now` in seconds since the epoch."""
    return current_run("time").loop.now


def time_ns() -> int:
    """`now` in nanoseconds since the epoch, of which it has whole microseconds."""
    return round(current_run("time_ns").loop.now * 1_000_000) * 1_000


def random() -> _random.Random:
    """Random numbers that replay repeats, seeded with the run id; not for secrets."""
    return current_run("random").random()


def uuid4() -> _uuid.UUID:
    """A UUID that replay repeats; not for secrets."""
    return current_run("uuid4").uuid4()


def history_length() -> int:
    """Events in the run's history, as of the current workflow task."""
    return current_run("history_length").history_length


def history_bytes() -> int:
    """What the run's history takes at the server, as of the current workflow task."""
    return current_run("history_bytes").history_bytes


def is_continue_as_new_suggested() -> bool:
    """Whether the server finds the history so long that the run had better start afresh."""
    return current_run("is_continue_as_new_suggested").suggests_continue_as_new


def build_id() -> str:
    """The build of the worker that makes the current decision; replay repeats which it was. Empty
    where the worker says none.
    """
    return current_run("build_id").build_id


def is_cancel_requested() -> bool:
    """Whether somebody has asked the run to cancel."""
    return current_run("is_cancel_requested").cancel_requested
