"""The code behind the golden histories. What it does may never change; only added to."""

import asyncio
from datetime import timedelta

from aetheris_client.errors import ActivityError, ApplicationError, ChildWorkflowError
from aetheris_worker import RetryPolicy, activity, workflow
from aetheris_worker.workflow import ActivityCancellationType

SHORT = timedelta(seconds=20)


@activity.defn
async def square(number: int) -> int:
    return number * number


@activity.defn
async def refuse(why: str) -> None:
    raise ApplicationError(why, type="Refused", non_retryable=True)


@activity.defn
async def wait_until_cancelled() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(0.05)


@activity.defn
async def flaky(fails: int) -> int:
    if activity.info().attempt <= fails:
        raise ApplicationError("not yet", type="Flaky")
    return fails


ACTIVITIES = [square, refuse, wait_until_cancelled, flaky]


@workflow.defn
class OneActivity:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_activity(square, number, start_to_close_timeout=SHORT)


@workflow.defn
class GoesOn:
    """Changes its notes, and goes on as new until it has gone far enough."""

    @workflow.run
    async def run(self, total: int, most: int) -> int:
        total += await workflow.execute_activity(square, total + 1, start_to_close_timeout=SHORT)
        workflow.upsert_memo({"total": total, "first": None})
        workflow.upsert_search_attributes({"total": total})
        if total < most:
            workflow.continue_as_new(total, most)
        return total


@workflow.defn
class FanOut:
    """Many activities, some capable, and a timer beside them."""

    @workflow.run
    async def run(self, count: int) -> int:
        timer = asyncio.create_task(workflow.sleep(0.05))
        squares = await asyncio.gather(
            *(
                workflow.execute_activity(square, number, start_to_close_timeout=SHORT)
                for number in range(count)
            )
        )
        await timer
        return sum(squares)


@workflow.defn
class Approval:
    """Signals before and while it waits, a condition with a timeout, and chance."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    @workflow.signal
    def note(self, text: str) -> None:
        self.notes.append(text)

    @workflow.signal
    async def check(self, number: int) -> None:
        result = await workflow.execute_activity(square, number, start_to_close_timeout=SHORT)
        self.notes.append(str(result))

    @workflow.query
    def noted(self) -> list[str]:
        return self.notes

    @workflow.run
    async def run(self, wanted: int) -> list[str]:
        await workflow.wait_condition(lambda: len(self.notes) >= wanted, timeout=60)
        if workflow.random().random() < 0.5:
            self.notes.append(str(workflow.uuid4()))
        else:
            await workflow.sleep(0.01)
        return self.notes


@workflow.defn
class Failing:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.execute_activity(
                refuse,
                "no",
                start_to_close_timeout=SHORT,
                retry_policy=RetryPolicy(maximum_attempts=2),
            )
        except ActivityError as error:
            raise ApplicationError("refused", type="Stopped") from error


@workflow.defn
class Cancelled:
    """Asked to cancel, it waits for its activity to stop and cleans up."""

    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.execute_activity(
                wait_until_cancelled,
                start_to_close_timeout=SHORT,
                heartbeat_timeout=timedelta(seconds=5),
                cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        finally:
            await workflow.execute_activity(square, 3, start_to_close_timeout=SHORT)


@workflow.defn
class Timeouts:
    """A deadline that passes and one that does not."""

    @workflow.run
    async def run(self) -> str:
        async with asyncio.timeout(60):
            await workflow.execute_activity(square, 2, start_to_close_timeout=SHORT)
        try:
            async with asyncio.timeout(0.05):
                await workflow.sleep(60)
        except TimeoutError:
            return "late"
        return "in time"


@workflow.defn
class Squarer:
    """A child: squares what it is told to, in one of two ways."""

    def __init__(self) -> None:
        self.number = 0

    @workflow.signal
    def tell(self, number: int) -> None:
        self.number = number

    @workflow.run
    async def run(self, fails: bool) -> int:
        await workflow.wait_condition(lambda: self.number != 0)
        if fails:
            raise ApplicationError("no", type="Refused")
        return await workflow.execute_activity(square, self.number, start_to_close_timeout=SHORT)


@workflow.defn
class Family:
    """Children that end in several ways, one whose id is taken, and calls of other runs."""

    @workflow.run
    async def run(self, prefix: str) -> list[str]:
        noted: list[str] = []
        squarer = await workflow.start_child_workflow(Squarer.run, False, id=f"{prefix}-1")
        failing = await workflow.start_child_workflow(Squarer.run, True, id=f"{prefix}-2")
        idle = await workflow.start_child_workflow(Squarer.run, False)
        for child in (squarer, failing):
            await child.signal(Squarer.tell, 7)
        noted.append(str(await squarer))
        for waits in (
            failing,
            workflow.start_child_workflow(Squarer.run, False, id=workflow.info().workflow_id),
        ):
            try:
                await waits
            except ChildWorkflowError as error:
                noted.append(str(error.cause))
        idle.cancel()
        try:
            await idle
        except asyncio.CancelledError:
            noted.append("cancelled")
        for ask in (
            workflow.get_external_workflow_handle("nobody").signal("tell", 1),
            workflow.get_external_workflow_handle(f"{prefix}-1").cancel(),
        ):
            try:
                await ask
            except ApplicationError as error:
                noted.append(str(error.type))
        await workflow.execute_activity(square, 2, start_to_close_timeout=SHORT)
        return noted


@workflow.defn
class LocalSteps:
    """Local activities: together, retried with a timer, failed, cancelled; others beside them."""

    @workflow.run
    async def run(self) -> list[int]:
        beside = workflow.start_activity(square, 9, start_to_close_timeout=SHORT)
        both = await asyncio.gather(
            workflow.execute_local_activity(square, 2, start_to_close_timeout=SHORT),
            workflow.execute_local_activity(square, 3, start_to_close_timeout=SHORT),
        )
        tried = await workflow.execute_local_activity(
            flaky,
            1,
            start_to_close_timeout=SHORT,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=40)),
            local_retry_threshold=timedelta(milliseconds=20),
        )
        try:
            await workflow.execute_local_activity(refuse, "no", start_to_close_timeout=SHORT)
        except ActivityError:
            tried += 100
        waiting = workflow.start_local_activity(
            wait_until_cancelled,
            start_to_close_timeout=SHORT,
            cancellation_type=ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.sleep(0.01)
        waiting.cancel()
        try:
            await waiting
        except asyncio.CancelledError:
            tried += 1_000
        return [*both, tried, await beside]


@workflow.defn
class Recorded:
    """Side effects and patches, on both sides of a task."""

    @workflow.run
    async def run(self) -> list[object]:
        first = workflow.side_effect(lambda: "here")
        new = workflow.patched("before")
        squared = await workflow.execute_activity(square, 4, start_to_close_timeout=SHORT)
        workflow.deprecate_patch("behind")
        return [first, new, squared, workflow.side_effect(lambda: [1, 2])]


@workflow.defn(waits_for_handlers=True)
class Ledger:
    """Updates of every kind: sync and async, rejected, failed, and one in the first task."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.is_closed = False

    @workflow.run
    async def run(self) -> list[str]:
        await workflow.wait_condition(lambda: self.is_closed)
        await workflow.sleep(0.01)
        return self.entries

    @workflow.update
    def enter(self, text: str) -> int:
        self.entries.append(text)
        return len(self.entries)

    @enter.validator
    def check_enter(self, text: str) -> None:
        if text in self.entries:
            raise ApplicationError(f"{text} is entered already")

    @workflow.update
    async def enter_square(self, number: int) -> int:
        result = await workflow.execute_activity(square, number, start_to_close_timeout=SHORT)
        await workflow.sleep(0.01)
        self.entries.append(str(result))
        return result

    @workflow.update
    async def refuse(self, why: str) -> None:
        raise ApplicationError(why, type="Refused")

    @workflow.update(name="close")
    def close_it(self) -> None:
        self.is_closed = True


WORKFLOWS = [
    OneActivity,
    FanOut,
    GoesOn,
    Approval,
    Failing,
    Cancelled,
    Timeouts,
    Squarer,
    Family,
    LocalSteps,
    Recorded,
    Ledger,
]
