"""What is set of a run from outside: values. What sets them is the machine `options`.

They are apart from it because the workflow task, which that machine offers anew, goes by them.
"""

from dataclasses import dataclass, field

from aetheris_server.history.state.run import RunState


@dataclass(slots=True)
class RunOptions:
    """What was set since the run began; a run of which nothing was has no such part.

    Attributes:
        pinned_build_id: The build that its workflow tasks go to; empty for whichever its task queue
            has.
        request_ids: The last requests that were recorded, oldest first.
    """

    pinned_build_id: str = ""
    request_ids: list[str] = field(default_factory=list[str])


def pinned_build_id(state: RunState) -> str:
    """The build that a run's workflow tasks go to; empty for whichever its task queue has."""
    options = state.parts.find(RunOptions)
    return state.started.pinned_build_id if options is None else options.pinned_build_id


def has_recorded(state: RunState, request_id: str) -> bool:
    """Whether a request is one of the last that were recorded."""
    options = state.parts.find(RunOptions)
    return options is not None and request_id in options.request_ids
