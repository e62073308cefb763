from pathlib import Path

import pytest

from aetheris_client.errors import ApplicationError
from aetheris_worker.testing import ActivityEnvironment
from examples.census import activities
from examples.census.activities import AnalyseRequest, PublishRequest
from examples.census.analysis import Figures, FileCensus, analyse
from examples.census.tally import tally

FILE = FileCensus("a.py", Figures(files=1, lines=3))


def publish(output: Path, approver: str) -> Path:
    request = PublishRequest("x", approver, tally([FILE]), str(output))
    return Path(ActivityEnvironment().run(activities.publish, request))


def test_listing_gives_the_files(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = 1")
    [file] = ActivityEnvironment().run(activities.list_files, str(tmp_path))
    assert (file.path, file.size) == ("a.py", 5)


@pytest.mark.parametrize("folder", ["", "missing", "file"])
def test_listing_of_nothing_fails_for_good(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ApplicationError) as caught:
        ActivityEnvironment().run(activities.list_files, str(tmp_path / folder))
    assert caught.value.non_retryable


def test_analysis_is_noted_in_the_ledger_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"a = 1\n")
    environment = ActivityEnvironment()
    request = AnalyseRequest(str(tmp_path), "a.py", str(tmp_path))
    assert environment.run(activities.analyse_file, request) == analyse("a.py", b"a = 1\n")
    assert (tmp_path / activities.ANALYSIS_LEDGER).read_text().startswith("a.py\tattempt 1\t")
    assert len(environment.heartbeats) == 3


def test_analysis_of_a_file_that_is_gone_is_a_result(tmp_path: Path) -> None:
    request = AnalyseRequest(str(tmp_path), "a.py", str(tmp_path))
    census = ActivityEnvironment().run(activities.analyse_file, request)
    assert (census.figures, census.problem) == (
        Figures(files=1),
        "FileNotFoundError: No such file or directory",
    )


def test_publishing_writes_the_report_and_one_line(tmp_path: Path) -> None:
    report = publish(tmp_path, "Ada")
    assert "Approved by Ada." in report.read_text()
    assert {entry.name for entry in tmp_path.iterdir()} == {"report", activities.PUBLISH_LEDGER}
    assert (tmp_path / activities.PUBLISH_LEDGER).read_text().count("\n") == 1


def test_publishing_twice_leaves_the_first_report_and_two_lines(tmp_path: Path) -> None:
    report = publish(tmp_path, "Ada")
    with pytest.raises(OSError, match="not empty"):
        publish(tmp_path, "Bob")
    assert "Approved by Ada." in report.read_text()
    assert (tmp_path / activities.PUBLISH_LEDGER).read_text().count("\n") == 2
