"""What the load runs: each workflow has one right result, whatever happens to it meanwhile."""

import asyncio
import os
import time
from datetime import timedelta

from aetheris_client.errors import ActivityError
from aetheris_worker import RetryPolicy, activity, workflow

TASK_QUEUE = "chaos"
EFFECTS_VARIABLE = "AETHERIS_CHAOS_EFFECTS"
"""Names the file to which `affect` adds a line for each time that it has run."""

# Short: an attempt that a killed worker had is made again only after it.
_ATTEMPT = timedelta(seconds=6)
_SOON = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=1)
)


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@activity.defn
async def fail_until(attempt: int) -> int:
    if activity.info().attempt < attempt:
        raise RuntimeError("not yet")
    return activity.info().attempt


@activity.defn
async def count_to(number: int) -> int:
    """Goes on where the last heartbeat of the attempt before was."""
    details = activity.info().heartbeat_details
    count = int(str(details[0])) if details else 0
    while count < number:
        await asyncio.sleep(0.2)
        count += 1
        activity.heartbeat(count)
    return count


@activity.defn
def affect(key: str) -> str:
    """Has an effect that must not be had twice."""
    with open(os.environ[EFFECTS_VARIABLE], "a") as effects:
        effects.write(f"{key}\n")
    time.sleep(int(key[:2], 16) / 256)
    return key


@activity.defn
async def swell(size: int) -> bytes:
    return b"x" * size


@workflow.defn
class Simple:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_activity(double, number, start_to_close_timeout=_ATTEMPT)


@workflow.defn
class Flaky:
    @workflow.run
    async def run(self, attempt: int) -> int:
        return await workflow.execute_activity(
            fail_until, attempt, start_to_close_timeout=_ATTEMPT, retry_policy=_SOON
        )


@workflow.defn
class Counting:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_activity(
            count_to,
            number,
            start_to_close_timeout=timedelta(seconds=60),
            heartbeat_timeout=timedelta(seconds=2),
            retry_policy=_SOON,
        )


@workflow.defn
class Timers:
    @workflow.run
    async def run(self, count: int) -> int:
        for _ in range(count):
            await workflow.sleep(workflow.random().random())
        await asyncio.gather(*(workflow.sleep(0.2 * number) for number in range(count)))
        return count


@workflow.defn
class Collecting:
    """Collects signals in the order in which they came."""

    def __init__(self) -> None:
        self.values: list[str] = []

    @workflow.run
    async def run(self, count: int) -> list[str]:
        await workflow.wait_condition(lambda: len(self.values) >= count)
        await workflow.execute_activity(double, 1, start_to_close_timeout=_ATTEMPT)
        return self.values

    @workflow.signal
    async def push(self, value: str) -> None:
        self.values.append(value)

    @workflow.query
    def seen(self) -> list[str]:
        return self.values


@workflow.defn
class Once:
    """The key, or `unknown` where the one attempt was lost."""

    @workflow.run
    async def run(self, key: str) -> str:
        try:
            return await workflow.execute_activity(
                affect, key, start_to_close_timeout=_ATTEMPT, at_most_once=True
            )
        except ActivityError:
            return "unknown"


@workflow.defn
class Parked:
    """Never ends by itself; does something more when it is cancelled."""

    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.wait_condition(lambda: False)
        finally:
            await workflow.execute_activity(double, 3, start_to_close_timeout=_ATTEMPT)


@workflow.defn
class Mixed:
    """Activities at once, one of them cancelled, and signals whose handlers have activities."""

    def __init__(self) -> None:
        self.values: list[str] = []

    @workflow.run
    async def run(self, count: int) -> list[str]:
        doubling = [
            workflow.start_activity(double, number, start_to_close_timeout=_ATTEMPT)
            for number in range(count)
        ]
        total = sum([await handle for handle in doubling])
        try:
            async with asyncio.timeout(0.5):
                await workflow.execute_activity(
                    count_to,
                    100,
                    start_to_close_timeout=timedelta(seconds=60),
                    heartbeat_timeout=timedelta(seconds=2),
                )
        except TimeoutError:
            pass
        await workflow.wait_condition(lambda: len(self.values) >= 2)
        return [*sorted(self.values), str(total)]

    @workflow.signal
    async def push(self, value: str) -> None:
        await workflow.execute_activity(double, 5, start_to_close_timeout=_ATTEMPT)
        self.values.append(value)


@workflow.defn
class Big:
    @workflow.run
    async def run(self, data: bytes) -> int:
        return len(
            await workflow.execute_activity(swell, len(data), start_to_close_timeout=_ATTEMPT)
        )


WORKFLOWS = [Simple, Flaky, Counting, Timers, Collecting, Once, Parked, Mixed, Big]
ACTIVITIES = [double, fail_until, count_to, affect, swell]
