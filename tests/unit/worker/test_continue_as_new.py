"""Going on in a new run, and what code knows of its chain."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1.command_pb2 import ContinueAsNewWorkflowExecutionCommandAttributes
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import WorkflowExecutionStartedEventAttributes
from aetheris_client.converter import DataConverter
from aetheris_client.errors import ApplicationError, PayloadEncodeError
from aetheris_client.search_attributes import from_search_attributes
from aetheris_worker import RetryPolicy, workflow
from aetheris_worker.runtime.errors import NondeterminismError, ReadOnlyError
from tests.unit.worker.driver import Session, machine_of

_CONVERTER = DataConverter.default()
_COMMAND = "continue as new"


def _attributes(session: Session) -> ContinueAsNewWorkflowExecutionCommandAttributes:
    closing = session.machine._entry.closing
    assert closing is not None
    return closing.to_proto().continue_as_new_workflow_execution_command_attributes


def _started(session: Session) -> WorkflowExecutionStartedEventAttributes:
    return session.history.events[0].workflow_execution_started_event_attributes


def _payloads(value: object) -> Payloads:
    return Payloads(payloads=[_CONVERTER.to_payload(value)])


@workflow.defn
class Counts:
    @workflow.run
    async def run(self, number: int) -> int:
        if number < 3:
            workflow.continue_as_new(number + 1)
        return number


@workflow.defn(name="Other")
class Other:
    @workflow.run
    async def run(self, text: str, number: int = 0) -> None: ...


def test_run_that_goes_on_gives_the_command_and_is_closed() -> None:
    session = Session(Counts, 1)
    assert session.step() == [_COMMAND]
    assert session.machine.is_closed
    attributes = _attributes(session)
    assert _CONVERTER.from_payloads(attributes.input) == [2]
    # All else stays as it is.
    assert {field.name for field, _ in attributes.ListFields()} == {"input"}
    assert session.replay().is_closed


@workflow.defn
class Chooses:
    @workflow.run
    async def run(self) -> None:
        workflow.continue_as_new(
            "text",
            workflow=Other.run,
            task_queue="elsewhere",
            run_timeout=timedelta(seconds=5),
            task_timeout=timedelta(seconds=6),
            start_delay=timedelta(seconds=7),
            retry_policy=RetryPolicy(maximum_attempts=8),
            memo={"a": [1]},
            search_attributes={"place": "here"},
        )


def test_options_are_in_the_command() -> None:
    session = Session(Chooses)
    assert session.step() == [_COMMAND]
    attributes = _attributes(session)
    assert attributes.workflow_type.name == "Other"
    assert attributes.task_queue.name == "elsewhere"
    assert attributes.workflow_run_timeout.seconds == 5
    assert attributes.workflow_task_timeout.seconds == 6
    assert attributes.backoff_start_interval.seconds == 7
    assert attributes.retry_policy.maximum_attempts == 8
    assert _CONVERTER.from_payload(attributes.memo.fields["a"]) == [1]
    assert from_search_attributes(attributes.search_attributes) == {"place": "here"}


@workflow.defn
class Guarded:
    """Catches what it can."""

    @workflow.run
    async def run(self, how: str) -> None:
        try:
            match how:
                case "task group":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._go_on())
                        await workflow.sleep(60)
                case "task":
                    await asyncio.create_task(self._go_on())
                case _:
                    await self._go_on()
        except Exception as error:
            raise ApplicationError("swallowed") from error

    async def _go_on(self) -> None:
        workflow.continue_as_new("done")


@pytest.mark.parametrize("how", ["plain", "task", "task group"])
def test_code_that_catches_exceptions_does_not_keep_it_from_going_on(how: str) -> None:
    session = Session(Guarded, how)
    assert session.step()[-1] == _COMMAND


@workflow.defn
class GoesOnInASignal:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.signal
    async def go_on(self) -> None:
        workflow.continue_as_new()


def test_signal_handler_may_go_on() -> None:
    session = Session(GoesOnInASignal)
    session.history.signaled("go_on")
    assert session.step() == [_COMMAND]


@workflow.defn(waits_for_handlers=True)
class Waits:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: not workflow.all_handlers_finished())
        workflow.continue_as_new()

    @workflow.signal
    async def work(self) -> None:
        await workflow.sleep(5)


def test_run_that_waits_for_its_handlers_goes_on_when_they_have_ended() -> None:
    session = Session(Waits)
    session.history.signaled("work")
    assert session.step() == ["timer 1 5s"]
    session.history.timer_fired("1")
    assert session.step() == [_COMMAND]
    assert session.replay().is_closed


def test_line_that_asked_for_it_is_known() -> None:
    session = Session(Chooses)
    session.step()
    assert "test_continue_as_new.py" in session.machine.site_of_command(0)
    assert session.machine.site_of_command(0).endswith(" in run")


def test_request_to_cancel_does_not_keep_a_run_from_going_on() -> None:
    session = Session(Counts, 1)
    session.history.cancel_requested()
    assert session.step() == [_COMMAND]


@workflow.defn
class Mistaken:
    @workflow.run
    async def run(self, options: dict[str, Any]) -> None:
        workflow.continue_as_new({}, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"run_timeout": 5}, "option 'run_timeout': expected a timedelta, found 5; write run_tim"),
        ({"retry_policy": 3}, "option 'retry_policy': expected a RetryPolicy, found 3"),
        ({"runtimeout": 5}, "there is no option 'runtimeout': did you mean 'run_timeout'"),
        ({"workflow": 4}, "4 is not a workflow"),
        ({"memo": [1]}, "option 'memo': expected a mapping of names to values"),
    ],
)
def test_mistake_fails_the_task_and_is_named(options: Mapping[str, object], message: str) -> None:
    session = Session(Mistaken, options)
    with pytest.raises(TypeError) as caught:
        session.step()
    assert message in str(caught.value)


@workflow.defn
class TooMany:
    @workflow.run
    async def run(self) -> None:
        workflow.continue_as_new(1)


def test_arguments_that_the_run_method_does_not_take_fail_the_task() -> None:
    with pytest.raises(TypeError, match="too many positional arguments; found 1"):
        Session(TooMany).step()


@workflow.defn
class NotEncodable:
    @workflow.run
    async def run(self, value: object = None) -> None:
        workflow.continue_as_new(object())


def test_argument_without_an_encoding_fails_the_task() -> None:
    with pytest.raises(PayloadEncodeError):
        Session(NotEncodable).step()


@workflow.defn
class GoesOnInAQuery:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def ask(self) -> None:
        workflow.continue_as_new()


def test_query_may_not_go_on() -> None:
    session = Session(GoesOnInAQuery)
    session.step()
    with pytest.raises(ReadOnlyError, match="continuing as new"):
        session.ask("ask")
    assert not session.machine.is_closed


@pytest.mark.parametrize("name", ["", "Another"])
def test_history_of_a_run_that_went_on_otherwise_is_nondeterminism(name: str) -> None:
    session = Session(Chooses)
    session.history.task()
    given = ContinueAsNewWorkflowExecutionCommandAttributes()
    given.workflow_type.name = name
    session.history.continued_as_new(given)
    with pytest.raises(NondeterminismError) as caught:
        machine_of(Chooses).advance(session.history.events)
    expected = f"the continuation of the run as new, as {name or 'Chooses'!r}"
    assert caught.value.recorded == expected
    assert caught.value.produced == "continued the run as new, as 'Other'"


def test_history_of_a_run_that_completed_is_nondeterminism() -> None:
    session = Session(Counts, 3)
    assert session.step() == ["complete"]
    _started(session).input.CopyFrom(_payloads(1))
    with pytest.raises(NondeterminismError, match="continued the run as new"):
        session.replay()


@workflow.defn
class Informed:
    def __init__(self) -> None:
        self.seen: tuple[object, ...] = ()

    @workflow.run
    async def run(self) -> None:
        self.seen = (
            workflow.info(),
            workflow.last_completion_result(list[int]),
            workflow.last_failure(),
            workflow.history_bytes(),
            workflow.history_length(),
            workflow.is_continue_as_new_suggested(),
        )
        await workflow.wait_condition(lambda: False)


def test_run_knows_its_chain() -> None:
    session = Session(Informed)
    started = _started(session)
    started.first_execution_run_id = "first"
    started.continued_execution_run_id = "before"
    started.attempt = 3
    started.retry_policy.CopyFrom(RetryPolicy(maximum_attempts=8).to_proto())
    started.memo.fields["a"].CopyFrom(_CONVERTER.to_payload(1))
    started.workflow_run_timeout.seconds = 9
    started.last_completion_result.CopyFrom(_payloads([1, 2]))
    started.continued_failure.message = "it broke"
    started.continued_failure.application_failure_info.type = "Broken"
    started.root_workflow_execution.workflow_id = "top"
    started.root_workflow_execution.run_id = "top-run"
    session.history.task_started()
    task = session.history.events[-1].workflow_task_started_event_attributes
    task.suggest_continue_as_new = True
    task.history_bytes = 1234
    session.machine.advance(session.history.events)
    info, last_result, last_failure, *rest = session.machine._entry._instance.seen
    assert (info.first_execution_run_id, info.continued_run_id) == ("first", "before")
    assert (info.attempt, info.run_timeout) == (3, timedelta(seconds=9))
    assert info.retry_policy.maximum_attempts == 8
    assert info.memo == {"a": 1}
    assert (info.root.workflow_id, info.root.run_id) == ("top", "top-run")
    assert last_result == [1, 2]
    assert isinstance(last_failure, ApplicationError)
    assert (last_failure.type, last_failure.message) == ("Broken", "it broke")
    assert rest == [1234, 3, True]


def test_run_that_continues_none_knows_it() -> None:
    session = Session(Informed)
    session.step()
    info, last_result, last_failure, *_ = session.machine._entry._instance.seen
    assert (info.first_execution_run_id, info.continued_run_id) == ("run-1", None)
    assert (info.attempt, info.retry_policy, info.memo, info.root) == (1, None, {}, None)
    assert (last_result, last_failure) == (None, None)
