"""Clients that start runs of every kind and know what must come of each; what they know is a book.

A request is repeated, with its request id, until the server has acknowledged or refused it.
"""

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final, TypeVar

from aetheris_client import Client, WorkflowHandle
from aetheris_client.errors import (
    CancelledError,
    DeadlineExceededError,
    RpcError,
    TerminatedError,
    UnavailableError,
    WorkflowClosedError,
    WorkflowFailedError,
)
from tests.fault.chaos.workflows import (
    TASK_QUEUE,
    Big,
    Collecting,
    Counting,
    Flaky,
    Mixed,
    Once,
    Parked,
    Simple,
    Timers,
)

T = TypeVar("T")

_REPEAT_INTERVAL: Final = 0.2
_RESULT_WAIT: Final = timedelta(seconds=10)
_QUERY_WAIT: Final = timedelta(seconds=5)
_MAX_BYTES: Final = 1_000_000


@dataclass(slots=True)
class Book:
    """What the clients were told.

    Attributes:
        runs: The workflow ids of acknowledged runs, by run id.
        signal_counts: How many signals were acknowledged, by run id.
        done: How many runs had their right result, by kind.
        errors: How often each type of error was met and repeated.
        faults: What was wrong.
    """

    runs: dict[str, str] = field(default_factory=dict[str, str])
    signal_counts: Counter[str] = field(default_factory=Counter[str])
    done: Counter[str] = field(default_factory=Counter[str])
    errors: Counter[str] = field(default_factory=Counter[str])
    faults: list[str] = field(default_factory=list[str])


class Load:
    """The clients.

    Attributes:
        end_time: When they start no more runs, on the monotonic clock.
        give_up_time: When they give up those that have not ended.
    """

    def __init__(
        self, clients: Sequence[Client], book: Book, end_time: float, give_up_time: float
    ) -> None:
        self.end_time = end_time
        self.give_up_time = give_up_time
        self.book = book
        self._clients = clients

    async def run(self, seed: int, concurrency: int) -> None:
        """Return when all runs have ended or were given up."""
        async with asyncio.TaskGroup() as group:
            for number in range(concurrency):
                group.create_task(_Starter(self, Random(f"{seed}-{number}")).run())

    def client(self, dice: Random) -> Client:
        return dice.choice(self._clients)


class _Starter:
    """One of the clients: starts a run, sees it through, starts the next."""

    def __init__(self, load: Load, dice: Random) -> None:
        self._load = load
        self._book = load.book
        self._dice = dice

    async def run(self) -> None:
        kinds: list[Callable[[], Awaitable[None]]] = [
            *[self._simple] * 4,
            *[self._collecting] * 2,
            *(self._flaky, self._counting, self._timers, self._once, self._cancelled),
            *(self._terminated, self._mixed, self._big),
        ]
        while time.monotonic() < self._load.end_time:
            kind = self._dice.choice(kinds)
            name = kind.__name__.strip("_")
            try:
                await kind()
            except (AssertionError, RpcError) as error:
                self._book.faults.append(f"{name}: {error!r}")
            else:
                self._book.done[name] += 1
            await asyncio.sleep(self._dice.random() * 0.2)

    # The kinds of runs.

    async def _simple(self) -> None:
        number = self._dice.randrange(1000)
        await self._expect(await self._start(Simple.run, number), 2 * number)

    async def _flaky(self) -> None:
        result = await self._result(await self._start(Flaky.run, 3))
        assert isinstance(result, int), result
        assert result >= 3

    async def _counting(self) -> None:
        await self._expect(await self._start(Counting.run, 8), 8)

    async def _timers(self) -> None:
        await self._expect(await self._start(Timers.run, 4), 4)

    async def _collecting(self) -> None:
        values = [f"value-{number}" for number in range(6)]
        run = await self._start(Collecting.run, len(values))
        for value in values:
            await self._signal(run, "push", value)
            if self._dice.random() < 0.3:
                await self._ask(run)
        await self._expect(run, values)

    async def _once(self) -> None:
        key = secrets.token_hex(8)
        result = await self._result(await self._start(Once.run, key))
        assert result in (key, "unknown"), result

    async def _cancelled(self) -> None:
        run = await self._park()
        await self._insist("cancel", lambda: self._seen(run).cancel(request_id=run.run_id))
        await self._expect_failure(run, CancelledError)

    async def _terminated(self) -> None:
        run = await self._park()
        # Closed: the answer to the first request was lost.
        with suppress(WorkflowClosedError):
            await self._insist("terminate", lambda: self._seen(run).terminate())
        await self._expect_failure(run, TerminatedError)

    async def _mixed(self) -> None:
        run = await self._start(Mixed.run, 5)
        for value in ("a", "b"):
            await self._signal(run, "push", value)
        await self._expect(run, ["a", "b", "20"])

    async def _big(self) -> None:
        size = self._dice.randrange(1, _MAX_BYTES)
        await self._expect(await self._start(Big.run, b"y" * size), size)

    # What they are made of.

    async def _start(self, workflow: Any, *arguments: Any) -> WorkflowHandle[Any]:
        workflow_id, request_id = f"chaos-{secrets.token_hex(8)}", secrets.token_hex(8)
        run = await self._insist(
            "start",
            lambda: self._load.client(self._dice).start_workflow(
                workflow, *arguments, id=workflow_id, task_queue=TASK_QUEUE, request_id=request_id
            ),
        )
        assert run.run_id is not None
        assert run.run_id not in self._book.runs, f"run id {run.run_id} was given out twice"
        self._book.runs[run.run_id] = workflow_id
        return run

    async def _park(self) -> WorkflowHandle[Any]:
        run = await self._start(Parked.run)
        await asyncio.sleep(self._dice.random() * 2)
        return run

    def _seen(self, run: WorkflowHandle[Any]) -> WorkflowHandle[Any]:
        """A run through either server."""
        return self._load.client(self._dice).get_workflow_handle(run.id, run_id=run.run_id)

    async def _signal(self, run: WorkflowHandle[Any], name: str, value: str) -> None:
        request_id = secrets.token_hex(8)
        await self._insist(
            "signal", lambda: self._seen(run).signal(name, value, request_id=request_id)
        )
        assert run.run_id is not None
        self._book.signal_counts[run.run_id] += 1

    async def _ask(self, run: WorkflowHandle[Any]) -> None:
        """A query may fail; an answer must be right."""
        try:
            values = await self._seen(run).query(Collecting.seen, timeout=_QUERY_WAIT)
        except RpcError as error:
            self._note("query", error)
            return
        assert len(set(values)) == len(values), f"{run.run_id}: a signal seen twice: {values}"

    async def _expect(self, run: WorkflowHandle[Any], expected: object) -> None:
        result = await self._result(run)
        assert result == expected, f"run {run.run_id}: expected {expected!r}, found {result!r}"

    async def _expect_failure(self, run: WorkflowHandle[Any], cause: type[Exception]) -> None:
        result = await self._result(run)
        assert isinstance(result, WorkflowFailedError), f"run {run.run_id}: found {result!r}"
        assert isinstance(result.cause, cause), f"run {run.run_id}: found {result.cause!r}"

    async def _result(self, run: WorkflowHandle[Any]) -> object:
        """What it returned, or the error that it ended with."""

        async def wait() -> object:
            try:
                return await self._typed(run).result(timeout=_RESULT_WAIT)
            except WorkflowFailedError as error:
                return error

        return await self._insist(f"result of run {run.run_id}", wait)

    def _typed(self, run: WorkflowHandle[Any]) -> WorkflowHandle[Any]:
        seen = self._seen(run)
        seen._result_type = run._result_type
        return seen

    async def _insist(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """Make a request until it is answered."""
        while True:
            try:
                return await call()
            except (UnavailableError, DeadlineExceededError) as error:
                self._note(what.partition(" ")[0], error)
            assert time.monotonic() < self._load.give_up_time, f"{what}: no answer"
            await asyncio.sleep(_REPEAT_INTERVAL)

    def _note(self, what: str, error: RpcError) -> None:
        self._book.errors[f"{what}: {type(error).__name__}"] += 1
