"""What a run keeps in its history for itself: values from outside, and which code it follows."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from aetheris_worker.runtime.machines.patch import Patches
from aetheris_worker.runtime.machines.side_effect import SideEffects
from aetheris_worker.workflow.current_run import current_run

R = TypeVar("R")


@overload
def side_effect(function: Callable[[], R]) -> R: ...
@overload
def side_effect(function: Callable[[], object], *, result_type: type[R]) -> R: ...
def side_effect(function: Callable[[], object], *, result_type: object = None) -> Any:
    """Call a function once, for a value that replay could not find out again, and record it; a
    replay gives back what was recorded, and does not call it.

    It may call what workflow code must not (clocks, chance, the environment), but should be quick
    and have no effect outside: if its workflow task fails or its worker dies, it is called again.
    What has an effect, or takes long, is an activity.

    Args:
        function: Plain, without arguments. It may do nothing to the run: no activity, no timer, no
            other side effect.
        result_type: What the value is decoded as; what the function is annotated with where absent.

    Raises:
        Exception: What the function raises. The workflow task fails with it and is tried again,
            even if the code catches it.
    """
    run = current_run("side_effect")
    return run.parts.make(SideEffects).take(function, result_type, run.replayed)


def patched(patch_id: str) -> bool:
    """Whether the run follows the code from this patch on: True, and recorded, for one that gets
    here with it; False for one that got past here before there was the patch.

    The first call decides for the whole run. When no run from before is open any more, write
    `deprecate_patch` instead, and drop the old branch.
    """
    run = current_run("patched")
    return run.parts.make(Patches).is_patched(patch_id, run.replayed, is_deprecated=False)


def deprecate_patch(patch_id: str) -> None:
    """All code follows the patch. When no run from before this call is open any more, the call may
    go as well.
    """
    run = current_run("deprecate_patch")
    run.parts.make(Patches).is_patched(patch_id, run.replayed, is_deprecated=True)
