"""Values that do not encode or decode in a workflow task: they fail what the code says they do."""

import asyncio
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest

from aetheris_client.converter import DataConverter
from aetheris_client.errors import (
    PayloadConversionError,
    PayloadDecodeError,
    PayloadEncodeError,
)
from aetheris_worker import workflow
from tests.unit.worker.driver import Session

MINUTE = timedelta(minutes=1)


def workflows(*failure_types: type[BaseException]) -> dict[str, type]:
    """The same workflows, for each set of types that fail the run."""

    @workflow.defn(failure_exception_types=failure_types)
    class Takes:
        @workflow.run
        async def run(self, number: int) -> None: ...

    @workflow.defn(failure_exception_types=failure_types)
    class Gives:
        @workflow.run
        async def run(self, _: int) -> float:
            return math.nan

    @workflow.defn(failure_exception_types=failure_types)
    class Asks:
        @workflow.run
        async def run(self, _: int) -> None:
            await workflow.execute_activity("work", math.nan, start_to_close_timeout=MINUTE)

    @workflow.defn(failure_exception_types=failure_types)
    class Hears:
        def __init__(self) -> None:
            self.go = False

        @workflow.run
        async def run(self, _: int) -> None:
            await workflow.wait_condition(lambda: self.go)

        @workflow.signal
        async def ask(self) -> None:
            await workflow.execute_activity("work", math.nan, start_to_close_timeout=MINUTE)

    @workflow.defn(failure_exception_types=failure_types)
    class Fails:
        def __init__(self) -> None:
            raise PayloadDecodeError("$", "int", "its constructor decodes")

        @workflow.run
        async def run(self, _: int) -> None: ...

    return {cls.__name__: cls for cls in (Takes, Gives, Asks, Hears, Fails)}


def begin(cls: type) -> Session:
    session = Session(cls, "text" if cls.__name__ == "Takes" else 1)
    if cls.__name__ == "Hears":
        session.history.signaled("ask")
    return session


@pytest.mark.parametrize("name", workflows())
@pytest.mark.parametrize("failure_type", [Exception, PayloadConversionError])
def test_value_error_fails_the_run_where_its_type_is_among_the_failure_types(
    name: str, failure_type: type[BaseException]
) -> None:
    commands = begin(workflows(failure_type)[name]).step()
    assert len(commands) == 1
    assert commands[0].startswith("fail ")


@pytest.mark.parametrize("name", workflows())
def test_value_error_fails_the_workflow_task_where_it_is_not(name: str) -> None:
    with pytest.raises((PayloadEncodeError, PayloadDecodeError)):
        begin(workflows()[name]).step()


@workflow.defn(failure_exception_types=[KeyError])
class TakesResult:
    @workflow.run
    async def run(self) -> str:
        handles = [
            workflow.start_activity("work", start_to_close_timeout=MINUTE, result_type=int),
            workflow.start_activity("work", start_to_close_timeout=MINUTE, result_type=int),
        ]
        results = await asyncio.gather(*handles, return_exceptions=True)
        return ", ".join(type(result).__name__ for result in results)


def make_decode_error() -> Exception:
    return PayloadDecodeError("$", "int", "it is none")


@pytest.mark.parametrize("make", [make_decode_error, KeyError, ValueError])
def test_result_whose_decoding_raises_anything_raises_where_it_is_awaited(
    make: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = Session(TakesResult)
    session.step()
    session.history.activity_completed(5, 1)
    session.history.activity_completed(6, 2)
    decode: Any = DataConverter.from_payloads
    with monkeypatch.context() as patched:
        patched.setattr(DataConverter, "from_payloads", Mock(side_effect=make()))
        assert session.step() == ["complete"]
    assert DataConverter.from_payloads is decode
    name = type(make()).__name__
    assert session.result() == f"{name}, {name}"
