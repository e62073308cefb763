from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from examples.census import evidence
from examples.census.activities import (
    ANALYSIS_LEDGER,
    PUBLISH_LEDGER,
    PublishRequest,
    append_line,
    publish,
)
from examples.census.analysis import FileCensus
from examples.census.evidence import RecordedActivity, RecordedRun, find_differences, plain_loop
from examples.census.tally import tally
from examples.census.workflow import CensusRequest

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = ("a.py", "b.py")


def seconds(number: float) -> datetime:
    return BEGIN + timedelta(seconds=number)


@pytest.fixture
def request_(tmp_path: Path) -> CensusRequest:
    folder, output = tmp_path / "folder", tmp_path / "output"
    folder.mkdir()
    output.mkdir()
    for name in NAMES:
        (folder / name).write_text(f"{name[0]} = 1\n")
        append_line(output / ANALYSIS_LEDGER, f"{name}\tattempt 1")
    return CensusRequest(str(folder), str(output), "folder")


@pytest.fixture
def expected(request_: CensusRequest) -> dict[str, FileCensus]:
    files = plain_loop(Path(request_.folder))
    publish(PublishRequest("folder", "Ada", tally(files.values()), request_.output))
    return files


@pytest.fixture
def run(expected: dict[str, FileCensus]) -> RecordedRun:
    run = RecordedRun(started_time=BEGIN, approved_time=seconds(5))
    for number, (path, file) in enumerate(expected.items(), start=1):
        run.activities[number] = RecordedActivity(
            "analyse_file", path, seconds(1), 1, [file], seconds(1 + number)
        )
    run.activities[9] = RecordedActivity("publish", "", seconds(5), 1, closed_time=seconds(5.5))
    return run


def test_good_run_has_no_differences(
    run: RecordedRun, expected: dict[str, FileCensus], request_: CensusRequest
) -> None:
    assert find_differences(run, expected, request_, "Ada") == []


def test_parts_of_a_run_take_their_time(run: RecordedRun) -> None:
    assert list(run.parts()) == [
        ("listing the files", 1.0),
        ("analysing them", 2.0),
        ("waiting for the approval", 2.0),
        ("publishing", 0.5),
    ]


def test_every_fault_is_found(
    run: RecordedRun, expected: dict[str, FileCensus], request_: CensusRequest
) -> None:
    run.activities[2].path = "a.py"
    append_line(Path(request_.output, PUBLISH_LEDGER), "again")
    Path(request_.output, ANALYSIS_LEDGER).write_text("a.py\tattempt 1\n")
    differences = find_differences(run, expected, request_, "Bob")
    assert [difference.partition(": recorded")[0] for difference in differences] == [
        "a.py: scheduled 2 times, expected 1",
        "b.py: scheduled 0 times, expected 1",
        "a.py",
        "b.py: in no worker's ledger",
        "published 2 times",
        f"{request_.output}/{evidence.REPORT_FOLDER}/report.md: is not what the plain loop gives",
    ]


def test_result_that_is_recorded_twice_is_found(
    run: RecordedRun, expected: dict[str, FileCensus], request_: CensusRequest
) -> None:
    run.activities[1].results *= 2
    [difference] = find_differences(run, expected, request_, "Ada")
    assert difference.startswith("a.py: recorded [")
