"""The worker's pure half alone: `python -m tests.bench.runtime`. No server, no gRPC.

Prints, for a workflow of one activity and for one of a hundred activities in a row, how long a
workflow task takes on a cached run, and a whole history on a fresh one.
"""

import gc
import sys
import time
from datetime import timedelta

from aetheris.api.v1.history_pb2 import History
from aetheris_client.converter import DataConverter
from aetheris_worker import workflow
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.replay import RunMachine
from tests.support.history_builder import HistoryBuilder

SECONDS = 2.0


@workflow.defn
class Row:
    """Activities in a row."""

    @workflow.run
    async def run(self, count: int) -> int:
        """Give the sum of their results."""
        total = 0
        for number in range(count):
            total += await workflow.execute_activity(
                "work", number, result_type=int, start_to_close_timeout=timedelta(seconds=10)
            )
        return total


def _recorded(count: int) -> tuple[bytes, list[int]]:
    """The serialized history of a run of so many activities, and where each of its tasks starts."""
    history = HistoryBuilder("Row", count)
    starts: list[int] = []
    for number in range(1, count + 1):
        starts.append(history.task_started())
        history.task_completed()
        scheduled = history.activity_scheduled(str(number), "work")
        history.activity_completed(scheduled, number)
    starts.append(history.task_started())
    return History(events=history.events).SerializeToString(), starts


def _machine() -> RunMachine:
    return RunMachine(
        WorkflowDefinition.of(Row), RunId("default", "w", "run-1"), DataConverter.default()
    )


def _run_cached(history: bytes, starts: list[int]) -> int:
    """Each task on the cached run; the number of tasks."""
    events = History.FromString(history).events
    machine = _machine()
    previous = 0
    for start in starts:
        for command in machine.advance(events[previous:start]):
            command.to_proto()
        previous = start
    machine.evict()
    return len(starts)


def _replay(history: bytes, starts: list[int]) -> int:
    """All tasks at once on a fresh run; the number of tasks."""
    events = History.FromString(history).events
    machine = _machine()
    for command in machine.advance(events):
        command.to_proto()
    machine.evict()
    return len(starts)


def _main() -> None:
    for count in (1, 100):
        history, starts = _recorded(count)
        for name, run in (("cached", _run_cached), ("replay", _replay)):
            gc.collect()
            tasks = runs = 0
            begin = time.process_time()
            while (elapsed := time.process_time() - begin) < SECONDS:
                tasks += run(history, starts)
                runs += 1
            sys.stdout.write(
                f"{count:4d} activities, {name}: {elapsed / tasks * 1e6:6.1f} µs a task, "
                f"{elapsed / runs * 1e6:8.1f} µs a run, {tasks / elapsed:,.0f} tasks/s\n"
            )


if __name__ == "__main__":
    _main()
