from collections.abc import Iterator

import pytest

from aetheris.api.v1.common_pb2 import Payloads
from aetheris_client import DataConverter
from examples.census.analysis import Figures, FileCensus
from examples.census.sources import SourceFile
from examples.census.workflow import Census, CensusRequest, Progress, Stage
from tests.unit.worker.driver import Session, evict_all

FILES = [SourceFile("a.py", 10), SourceFile("p/__init__.py", 10), SourceFile("z.py", 10)]
REQUEST = CensusRequest("/folder", "/output", "folder", window=2)


@pytest.fixture(autouse=True)
def evicted_machines() -> Iterator[None]:
    yield
    evict_all()


@pytest.fixture
def session() -> Session:
    return Session(Census, REQUEST)


def listed(session: Session) -> int:
    """The id of the event that scheduled the first analysis."""
    session.step()
    session.history.activity_completed(len(session.history.events), FILES)
    session.step()
    return len(session.history.events) - 1


def census(path: str) -> FileCensus:
    return FileCensus(path, Figures(files=1, lines=2))


def progress(session: Session) -> Progress:
    answer = session.replay().query("progress", Payloads())
    [value] = DataConverter.default().from_payloads(answer, [Progress])
    return value


def analysed(session: Session) -> None:
    first = listed(session)
    session.history.activity_completed(first, census("a.py"))
    session.history.activity_completed(first + 1, census("p/__init__.py"))
    session.step()
    session.history.activity_completed(len(session.history.events), census("z.py"))
    session.step()


def test_census_begins_by_listing(session: Session) -> None:
    assert session.step() == ["activity 1 list_files"]


def test_census_analyses_no_more_than_its_window_at_a_time(session: Session) -> None:
    session.step()
    session.history.activity_completed(len(session.history.events), FILES)
    assert session.step() == ["activity 2 analyse_file", "activity 3 analyse_file"]
    session.history.activity_completed(len(session.history.events) - 1, census("a.py"))
    assert session.step() == ["activity 4 analyse_file"]


def test_census_asks_for_a_parser_where_a_file_is_heavy(session: Session) -> None:
    session.history.task_started()
    session.machine.advance(session.history.events)
    session.history.task_completed()
    scheduled = session.history.activity_scheduled("1", "list_files")
    session.history.activity_completed(scheduled, FILES)
    session.history.task_started()
    commands = session.machine.advance(session.history.after(session.machine.started_event_id))
    capabilities = [
        list(command.to_proto().schedule_activity_task_command_attributes.capabilities)
        for command in commands
    ]
    assert capabilities == [[], ["parse"]]


def test_progress_counts_what_has_come_in(session: Session) -> None:
    first = listed(session)
    session.history.activity_completed(first, census("a.py"))
    session.step()
    assert progress(session) == Progress(Stage.ANALYSING, files=3, done=1)


def test_census_waits_for_the_approval_and_publishes_once(session: Session) -> None:
    analysed(session)
    assert progress(session) == Progress(Stage.WAITING, files=3, done=3)
    session.history.signaled("approve", "Ada")
    session.history.signaled("approve", "Bob")
    assert session.step() == ["activity 5 publish"]
    session.history.activity_completed(len(session.history.events), "/output/report.md")
    assert session.step() == ["complete"]
    assert session.result() == {
        "report": "/output/report.md",
        "total": {**dict.fromkeys(Figures.__slots__, 0), "files": 3, "lines": 6},
    }


def test_approval_before_the_end_is_remembered(session: Session) -> None:
    session.history.signaled("approve", "Ada")
    analysed(session)
    assert progress(session).stage is Stage.PUBLISHING


def test_census_whose_publication_is_in_doubt_fails(session: Session) -> None:
    session.history.signaled("approve", "Ada")
    analysed(session)
    session.history.activity_timed_out(len(session.history.events))
    assert session.step() == ["fail activity 'publish' failed"]
