"""The workflows of the benchmarks. What both sides of them agree on."""

import asyncio
from datetime import timedelta

from aetheris_worker import activity, workflow

TASK_QUEUE = "bench"

_TIMEOUT = timedelta(seconds=30)


@activity.defn
async def greet(name: str) -> str:
    """Do next to nothing."""
    return f"hello, {name}"


@workflow.defn
class Simple:
    """Start, one activity, done."""

    @workflow.run
    async def run(self, name: str) -> str:
        """Give what the activity gives."""
        return await workflow.execute_activity(greet, name, start_to_close_timeout=_TIMEOUT)


@workflow.defn
class Steps:
    """Activities one after the other."""

    @workflow.run
    async def run(self, count: int) -> int:
        """Give how many it was."""
        for _ in range(count):
            await workflow.execute_activity(greet, "world", start_to_close_timeout=_TIMEOUT)
        return count


@workflow.defn
class LocalSteps:
    """Local activities one after the other."""

    @workflow.run
    async def run(self, count: int) -> int:
        """Give how many it was."""
        for _ in range(count):
            await workflow.execute_local_activity(greet, "world", start_to_close_timeout=_TIMEOUT)
        return count


@workflow.defn
class FanOut:
    """Activities at once."""

    @workflow.run
    async def run(self, count: int) -> int:
        """Give how many it was."""
        greetings = [
            workflow.execute_activity(greet, "world", start_to_close_timeout=_TIMEOUT)
            for _ in range(count)
        ]
        return len(await asyncio.gather(*greetings))


@workflow.defn
class Nothing:
    """What a parent has many of."""

    @workflow.run
    async def run(self) -> None:
        """Be done."""


@workflow.defn
class Family:
    """Children at once."""

    @workflow.run
    async def run(self, count: int) -> int:
        """Give how many it was."""
        prefix = workflow.info().workflow_id
        children = [
            workflow.execute_child_workflow(Nothing.run, id=f"{prefix}/{number}")
            for number in range(count)
        ]
        return len(await asyncio.gather(*children))


@workflow.defn
class Parked:
    """Waits for a signal that does not come."""

    def __init__(self) -> None:
        self._has_come = False

    @workflow.run
    async def run(self) -> None:
        """Return when the signal has come."""
        await workflow.wait_condition(lambda: self._has_come)

    @workflow.signal
    def come(self) -> None:
        """What nobody sends."""
        self._has_come = True
