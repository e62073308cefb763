"""Patches: every version of a workflow against the histories of all the others."""

from typing import cast

import pytest

from aetheris_worker import workflow
from aetheris_worker.runtime.errors import HistoryError, NondeterminismError, ReadOnlyError
from tests.support.history_builder import HistoryBuilder
from tests.unit.worker.driver import Session, machine_of


@workflow.defn(name="Flow")
class Old:
    @workflow.run
    async def run(self) -> str:
        await workflow.sleep(1)
        return "old"


@workflow.defn(name="Flow")
class Patched:
    @workflow.run
    async def run(self) -> str:
        if workflow.patched("p"):
            await workflow.sleep(2)
            return "new"
        await workflow.sleep(1)
        return "old"


@workflow.defn(name="Flow")
class Deprecated:
    @workflow.run
    async def run(self) -> str:
        workflow.deprecate_patch("p")
        await workflow.sleep(2)
        return "new"


@workflow.defn(name="Flow")
class New:
    @workflow.run
    async def run(self) -> str:
        await workflow.sleep(2)
        return "new"


def history_of(workflow_class: type) -> HistoryBuilder:
    """Of a run that has started its timer, and is told that it fired."""
    session = Session(workflow_class)
    session.step()
    session.history.timer_fired("1")
    session.history.task_started()
    return session.history


def end_of(workflow_class: type, history: HistoryBuilder) -> str:
    machine = machine_of(workflow_class)
    machine.advance(history.events)
    return cast(str, Session.result_of(machine))


@pytest.mark.parametrize(
    "written, code, end",
    [
        (Old, Old, "old"),
        (Old, Patched, "old"),
        (Patched, Patched, "new"),
        (Patched, Deprecated, "new"),
        (Deprecated, Patched, "new"),
        (Deprecated, Deprecated, "new"),
        (Deprecated, New, "new"),
        (New, Deprecated, "new"),
        (New, New, "new"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_code_follows_the_version_that_the_history_was_written_with(
    written: type, code: type, end: str
) -> None:
    assert end_of(code, history_of(written)) == end


@pytest.mark.parametrize(
    "written, code, message",
    [
        (Patched, Old, "history has the patch 'p'; the code started timer '1'"),
        (Patched, New, "history has the patch 'p'; the code started timer '1'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_marker_whose_call_is_gone_is_told(written: type, code: type, message: str) -> None:
    with pytest.raises(NondeterminismError, match=message):
        machine_of(code).advance(history_of(written).events)


def test_patch_is_recorded_once_however_often_it_is_asked() -> None:
    @workflow.defn
    class Often:
        @workflow.run
        async def run(self) -> list[bool]:
            answers = [workflow.patched("p"), workflow.patched("p")]
            await workflow.sleep(1)
            answers.append(workflow.patched("p"))
            workflow.deprecate_patch("p")
            return answers

    session = Session(Often)
    assert session.step() == ["marker patch p", "timer 1 1s"]
    session.history.timer_fired("1")
    assert session.step() == ["complete"]
    assert session.result() == [True, True, True]
    assert session.result_of(session.replay()) == [True, True, True]


def test_first_answer_holds_for_the_whole_run() -> None:
    @workflow.defn(name="Flow")
    class Twice:
        @workflow.run
        async def run(self) -> list[bool]:
            first = workflow.patched("p")
            await workflow.sleep(1)
            return [first, workflow.patched("p")]

    history = history_of(Old)
    machine = machine_of(Twice)
    machine.advance(history.events)
    assert Session.result_of(machine) == [False, False]


def test_patch_beyond_the_old_part_of_a_history_is_followed() -> None:
    @workflow.defn(name="Flow")
    class Later:
        @workflow.run
        async def run(self) -> bool:
            await workflow.sleep(1)
            return workflow.patched("p")

    history = history_of(Old)
    commands = machine_of(Later).advance(history.events)
    assert [command.describe() for command in commands] == [
        "called patched('p')",
        "completed the run",
    ]


def test_deprecated_marker_that_was_passed_over_answers_later_calls() -> None:
    @workflow.defn(name="Flow")
    class MovedBehind:
        @workflow.run
        async def run(self) -> bool:
            await workflow.sleep(2)
            return workflow.patched("p")

    history = history_of(Deprecated)
    commands = machine_of(MovedBehind).advance(history.events)
    assert [command.describe() for command in commands] == ["completed the run"]


def test_two_patches_have_a_marker_each() -> None:
    @workflow.defn
    class Two:
        @workflow.run
        async def run(self) -> list[bool]:
            return [workflow.patched("b"), workflow.patched("a")]

    session = Session(Two)
    assert session.step() == ["marker patch b", "marker patch a", "complete"]
    assert session.result_of(session.replay()) == [True, True]


@pytest.mark.parametrize("patch_id", ["", 7])
def test_patch_without_an_id_is_refused(patch_id: object) -> None:
    @workflow.defn
    class Bad:
        @workflow.run
        async def run(self) -> None:
            workflow.patched(cast(str, patch_id))

    with pytest.raises(ValueError, match="the id of a patch: expected a text"):
        Session(Bad).step()


def test_patch_in_query_is_refused() -> None:
    @workflow.defn
    class Asked:
        @workflow.run
        async def run(self) -> None:
            await workflow.sleep(1)

        @workflow.query
        def ask(self) -> bool:
            return workflow.patched("p")

    session = Session(Asked)
    session.step()
    with pytest.raises(ReadOnlyError):
        session.ask("ask")


def test_marker_that_cannot_be_read_is_no_history() -> None:
    history = history_of(Patched)
    for event in history.events:
        if event.HasField("marker_recorded_event_attributes"):
            event.marker_recorded_event_attributes.details["data"].payloads[0].data = b"["
    with pytest.raises(HistoryError, match="the marker 'patch' cannot be read"):
        machine_of(Patched).advance(history.events)
