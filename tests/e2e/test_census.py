"""The main job, small: a census whose worker is killed half-way."""

import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from examples.census.activities import REPORT_FOLDER
from examples.census.demo import Outage, take_census
from examples.census.report import REPORT_NAME
from examples.census.sources import standard_library

pytestmark = pytest.mark.slow

PACKAGES = ("asyncio", "email", "encodings")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A code base of some 180 files, one of which does not parse."""
    folder = tmp_path / "code"
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(standard_library() / package, folder / package, ignore=ignored)
    (folder / "broken.py").write_text("def f(:\n")
    return folder


async def test_census_whose_worker_is_killed_records_every_file_once(
    folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    output.mkdir()
    screen = StringIO()
    await take_census(folder, output, [Outage(0.3, "worker-1")], Console(file=screen), window=8)
    assert "kill -9 worker-1" in screen.getvalue()
    assert "Every file was recorded exactly once." in screen.getvalue()
    report = (output / REPORT_FOLDER / REPORT_NAME).read_text()
    assert "| `broken.py` | SyntaxError: invalid syntax in line 1 |" in report
