"""For tests of workflow and activity code, without a server.

`Replayer` runs recorded histories against the code as it is now: a change that would break runs in
flight fails the test. `ActivityEnvironment` calls an activity as a worker would.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, Final

from google.protobuf import json_format

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import History
from aetheris.api.v1.worker_service_pb2 import ActivityTask
from aetheris_client.converter import DataConverter
from aetheris_worker.activities.attempt import CURRENT, Attempt, CancelReason
from aetheris_worker.registry import workflows_by_name
from aetheris_worker.runtime.definitions import is_async
from aetheris_worker.runtime.errors import HistoryError, NondeterminismError
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.replay import RunMachine

__all__ = ["ActivityEnvironment", "HistoryError", "NondeterminismError", "Replayer", "read_history"]

_RUN: Final = "replayed"
# A message as it travels is bounded to 100 levels; its times and values may add a few in JSON.
_MAX_DEPTH: Final = 200


def read_history(path: Path | str) -> History:
    """A history from a JSON file, as `aetheris-admin workflow history --output json` writes it: the
    API's History message as protobuf's JSON.

    Raises:
        HistoryError: The file holds something else.
    """
    try:
        return json_format.Parse(
            Path(path).read_text(encoding="utf-8"), History(), max_recursion_depth=_MAX_DEPTH
        )
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise HistoryError(
            f"{path} is no history as `aetheris-admin workflow history --output json` writes it: "
            f"{error}"
        ) from error


class Replayer:
    """Replays histories against workflow code."""

    def __init__(
        self, *, workflows: Sequence[type], data_converter: DataConverter | None = None
    ) -> None:
        self._workflows = workflows_by_name(workflows)
        self._converter = data_converter or DataConverter.default()

    def replay(self, history: History) -> None:
        """Run the code along a history, open or closed.

        Raises:
            NondeterminismError: The code does not do what the history says it did.
            HistoryError: The events are not a history.
            LookupError: The history is of a workflow type that is not here.
            Exception: Whatever the code raised that does not end the run.
        """
        events = history.events
        if not events or not events[0].HasField("workflow_execution_started_event_attributes"):
            raise HistoryError("the history does not begin with WORKFLOW_EXECUTION_STARTED")
        started = events[0].workflow_execution_started_event_attributes
        definition = self._workflows.get(started.workflow_type.name)
        if definition is None:
            raise LookupError(
                f"workflow type {started.workflow_type.name!r}: expected one of "
                f"{sorted(self._workflows)}"
            )
        run_id = RunId(_RUN, started.workflow_id or _RUN, started.original_execution_run_id or _RUN)
        machine = RunMachine(definition, run_id, self._converter)
        try:
            machine.advance(events)
        finally:
            machine.evict()


class ActivityEnvironment:
    """Calls activities as a worker would, one at a time.

    Attributes:
        task: What `activity.info()` is read from; set its fields before `run`.
        heartbeats: The details of every heartbeat so far, none held back.
    """

    def __init__(self, data_converter: DataConverter | None = None) -> None:
        self.task = ActivityTask(
            task_token=b"token", activity_id="1", attempt=1, namespace="default"
        )
        self.task.workflow_execution.workflow_id = "workflow"
        self.task.workflow_execution.run_id = "run"
        self.heartbeats: list[tuple[Any, ...]] = []
        self._converter = data_converter or DataConverter.default()
        self._attempt: Attempt | None = None

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it; a plain function gives its result, an async one an awaitable of it."""
        awaits = is_async(function)
        heartbeats = _KeptHeartbeats(self.heartbeats, self._converter)
        attempt = Attempt(
            self.task, "default", "queue", self._converter, heartbeats, is_async=awaits
        )
        self._attempt = attempt
        context = copy_context()
        context.run(CURRENT.set, attempt)
        if not awaits:
            return context.run(function, *arguments)
        return self._run_async(attempt, partial(function, *arguments))

    def cancel(self, reason: CancelReason = CancelReason.REQUESTED) -> None:
        """Cancel the activity that runs."""
        if self._attempt is not None:
            self._attempt.cancel(reason)

    async def _run_async(self, attempt: Attempt, call: Callable[[], Any]) -> Any:
        async def body() -> Any:
            CURRENT.set(attempt)
            return await call()

        task = asyncio.create_task(body())
        attempt.on_cancel(task.cancel)
        return await task


class _KeptHeartbeats:
    """Keeps heartbeats instead of sending them."""

    def __init__(self, kept: list[tuple[Any, ...]], converter: DataConverter) -> None:
        self.last_details: Payloads | None = None
        self._kept = kept
        self._converter = converter
        self._lock = threading.Lock()

    def beat_threadsafe(self, details: Payloads | None) -> None:
        with self._lock:
            self.last_details = details
            self._kept.append(tuple(self._converter.from_payloads(details)))

    def answered(self) -> None:
        """None is ever on its way."""

    def drop_details(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held back."""
