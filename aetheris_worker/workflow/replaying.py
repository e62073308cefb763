"""What goes by whether the code repeats what it did before: the logger, and what is unsafe."""

import logging
from contextlib import AbstractContextManager
from typing import Any, Final

from aetheris_worker.runtime import guard
from aetheris_worker.workflow.current_run import current_run, try_current_run


class _Unsafe:
    """What most workflow code has no business to know."""

    @staticmethod
    def is_replaying() -> bool:
        """Whether the code repeats what it did before. Deciding anything by it breaks replay."""
        return current_run("unsafe.is_replaying").is_replaying

    @staticmethod
    def sandbox_unrestricted() -> AbstractContextManager[None]:
        """Free a `with` block from what workflow code may not call (clocks, chance). What comes of
        it must not matter to the run: replay gives other values.
        """
        return guard.unrestricted()


unsafe: Final = _Unsafe()


class _WorkflowLogger(logging.LoggerAdapter[logging.Logger]):
    """Logs once what replay repeats, and says which run it is."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the base class's name
        run = try_current_run()
        if run is not None and run.is_replaying:
            return False
        return super().isEnabledFor(level)

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        run = try_current_run()
        if run is not None:
            extra = {
                "namespace": run.id.namespace,
                "workflow_id": run.id.workflow_id,
                "run_id": run.id.run_id,
                "workflow_type": run.info.workflow_type,
            }
            kwargs["extra"] = {**extra, **(kwargs.get("extra") or {})}
        return msg, kwargs


logger: Final = _WorkflowLogger(logging.getLogger("aetheris.workflow"), {})
"""A logger that is silent while the code repeats what it did before."""
