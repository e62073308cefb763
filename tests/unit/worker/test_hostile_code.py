"""Workflow code that raises what it should not: the workflow task fails, and nothing else does."""

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import ClassVar
from unittest.mock import Mock

import pytest

from aetheris.api.v1.common_pb2 import Payloads
from aetheris_client.converter import DataConverter
from aetheris_client.errors import ApplicationError, PayloadEncodeError
from aetheris_worker import workflow
from aetheris_worker.runtime import entry
from aetheris_worker.runtime.errors import StrayError
from tests.unit.worker.driver import Session


@workflow.defn
class CancelsItself:
    @workflow.run
    async def run(self) -> None:
        task = asyncio.create_task(workflow.sleep(100))
        task.cancel()
        await task


@workflow.defn
class ExitsInRun:
    @workflow.run
    async def run(self) -> None:
        sys.exit(3)


@workflow.defn
class ExitsInTask:
    @workflow.run
    async def run(self) -> None:
        async def leave() -> None:
            sys.exit(3)

        await asyncio.create_task(leave())


@workflow.defn
class RaisesBaseGroup:
    @workflow.run
    async def run(self) -> None:
        raise BaseExceptionGroup("both", [SystemExit(3), asyncio.CancelledError()])


@workflow.defn
class PredicateCancels:
    @workflow.run
    async def run(self) -> None:
        cancelled: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        answers = iter([False])
        await workflow.wait_condition(lambda: next(answers, True) and cancelled.result())


@pytest.mark.parametrize(
    "cls", [CancelsItself, ExitsInRun, ExitsInTask, RaisesBaseGroup, PredicateCancels]
)
def test_code_that_raises_no_exception_fails_the_workflow_task(cls: type) -> None:
    with pytest.raises(StrayError):
        Session(cls).step()


@workflow.defn
class Waits:
    """Waits for a signal that never comes."""

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    def leave(self) -> None:
        sys.exit(3)

    @workflow.signal
    def stop(self) -> None:
        raise asyncio.CancelledError

    @workflow.signal
    def take(self, values: set[int]) -> None: ...

    @workflow.query
    def cancels(self) -> None:
        raise asyncio.CancelledError

    @workflow.query
    def exits(self) -> None:
        sys.exit(3)


@pytest.mark.parametrize("signal", ["leave", "stop"])
def test_signal_handler_that_raises_no_exception_fails_the_workflow_task(signal: str) -> None:
    session = Session(Waits)
    session.step()
    session.history.signaled(signal)
    with pytest.raises(StrayError):
        session.step()


@pytest.mark.parametrize("query", ["cancels", "exits"])
def test_query_handler_that_raises_no_exception_fails_the_query(query: str) -> None:
    session = Session(Waits)
    session.step()
    with pytest.raises(StrayError):
        session.machine.query(query, Payloads())


@pytest.mark.parametrize("error", [TypeError, UnicodeDecodeError("utf-8", b"", 0, 1, "bad")])
def test_signal_whose_decoding_raises_anything_stays_queued(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    session = Session(Waits)
    session.step()
    session.history.signaled("take", [1])
    monkeypatch.setattr(DataConverter, "from_payloads", Mock(side_effect=error))
    with caplog.at_level(logging.WARNING):
        assert session.step() == []
    assert "signal 'take' stays queued" in caplog.text
    assert session.machine.unhandled_signal_count == 1


@workflow.defn
class RaisesUnencodable:
    @workflow.run
    async def run(self) -> None:
        raise ApplicationError("x", object())


@workflow.defn
class HandlerRaisesUnencodable:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    async def fail(self) -> None:
        raise ApplicationError("x", object())


def test_failure_that_does_not_encode_fails_the_workflow_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = PayloadEncodeError("object", "$", "it has no encoding")
    monkeypatch.setattr(entry, "to_failure", Mock(side_effect=error))
    with pytest.raises(PayloadEncodeError):
        Session(RaisesUnencodable).step()
    session = Session(HandlerRaisesUnencodable)
    session.step()
    session.history.signaled("fail")
    with pytest.raises(PayloadEncodeError):
        session.step()


async def nothing() -> None: ...


async def sleep_on() -> None:
    await asyncio.sleep(1)


async def spawn() -> None:
    await asyncio.create_task(nothing())


async def call_later() -> None:
    asyncio.get_running_loop().call_later(-1, print)
    await asyncio.get_running_loop().create_future()


async def start_activity() -> None:
    await workflow.start_activity("work", start_to_close_timeout=timedelta(minutes=1))


async def wait_condition() -> None:
    await workflow.wait_condition(lambda: False, timeout=1)


@workflow.defn
class NeverGivesUp:
    tries: ClassVar[list[Callable[[], Awaitable[None]]]] = []

    @workflow.run
    async def run(self) -> None:
        while True:
            try:
                await self.tries[-1]()
            except BaseException:  # noqa: BLE001 - what it is about
                continue


@pytest.mark.parametrize("tries", [sleep_on, spawn, call_later, start_activity, wait_condition])
def test_eviction_ends_whatever_the_code_repeats(tries: Callable[[], Awaitable[None]]) -> None:
    # The first try must wait for something, or the activation would not end.
    NeverGivesUp.tries[:] = [wait_condition]
    session = Session(NeverGivesUp)
    session.step()
    NeverGivesUp.tries.append(tries)
    session.machine.evict()
    assert session.machine.run.loop.live_tasks() == []


@workflow.defn
class LogsAtItsEnd:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.wait_condition(lambda: False)
        finally:
            workflow.logger.warning("over")


def test_evicted_code_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    session = Session(LogsAtItsEnd)
    session.step()
    session.machine.evict()
    assert "over" not in caplog.text
