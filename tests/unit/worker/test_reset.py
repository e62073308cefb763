"""Code of a run that begins as another one did, up to a workflow task."""

import random
from datetime import timedelta

from aetheris_worker import workflow
from aetheris_worker.runtime.replay import RunMachine
from tests.unit.worker.driver import Session, machine_of

MINUTE = timedelta(minutes=1)


@workflow.defn
class Draws:
    """Draws in each of its tasks; from a source that it keeps, and by the function."""

    def __init__(self) -> None:
        self.drawn: list[float] = []
        self.words: list[str] = []

    @workflow.run
    async def run(self) -> list[float]:
        source = workflow.random()
        while len(self.drawn) < 6:
            self.drawn += [source.random(), workflow.random().random()]
            await workflow.sleep(MINUTE)
        return self.drawn

    @workflow.signal
    def word(self, text: str) -> None:
        self.words.append(text)


def _numbers(seed: str, count: int) -> list[float]:
    source = random.Random(seed)
    return [source.random() for _ in range(count)]


def _code(machine: RunMachine) -> Draws:
    instance = machine._entry._instance
    assert isinstance(instance, Draws)
    return instance


def _base() -> Session:
    """It has drawn twice, and its third task is about to be decided."""
    session = Session(Draws)
    session.step()
    session.history.timer_fired("1")
    session.step()
    session.history.timer_fired("2")
    session.history.task_started()
    return session


def test_random_numbers_are_those_of_the_base_and_then_the_run_s_own() -> None:
    session = _base()
    session.history.begins_anew("run-2")
    session.machine = machine_of(Draws, "run-2")
    session.step()
    expected = [*_numbers("run-1", 4), *_numbers("run-2", 2)]
    assert _code(session.machine).drawn == expected
    assert _code(session.replay()).drawn == expected


def test_run_that_begins_anew_twice_has_numbers_of_its_own_from_the_last_time_on() -> None:
    session = _base()
    session.history.begins_anew("run-2")
    session.history.task_started()
    session.history.begins_anew("run-3")
    session.machine = machine_of(Draws, "run-3")
    session.step()
    assert _code(session.machine).drawn == [*_numbers("run-1", 4), *_numbers("run-3", 2)]


def test_code_that_first_draws_behind_the_point_has_the_run_s_own_numbers() -> None:
    session = Session(Draws)
    session.history.task_started()
    session.history.begins_anew("run-2")
    session.machine = machine_of(Draws, "run-2")
    session.step()
    assert _code(session.machine).drawn == _numbers("run-2", 2)


def test_signals_that_come_again_are_seen_with_the_task_that_is_decided_anew() -> None:
    session = _base()
    session.history.begins_anew("run-2")
    session.history.signaled("word", "again")
    session.machine = machine_of(Draws, "run-2")
    assert session.step() == ["timer 3 60s"]
    assert _code(session.machine).words == ["again"]
