"""The run whose code is at work, which the functions of `aetheris_worker.workflow` ask."""

import asyncio
from typing import cast

from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.run import WorkflowRun


class NotInWorkflowError(RuntimeError):
    """A function of `aetheris_worker.workflow` was called outside of workflow code."""


def try_current_run() -> WorkflowRun | None:
    """The run of the caller; None outside of workflow code."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return cast(WorkflowRun, loop.owner) if isinstance(loop, WorkflowLoop) else None


def current_run(call: str) -> WorkflowRun:
    """The run of the caller, which is the function `call` of `aetheris_worker.workflow`.

    Raises:
        NotInWorkflowError: The caller is no workflow code.
    """
    run = try_current_run()
    if run is None:
        raise NotInWorkflowError(f"workflow.{call} was called outside of workflow code")
    return run
