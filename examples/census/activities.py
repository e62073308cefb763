"""What the census does to the world: read files, write the report.

Every call leaves a line in a ledger beside the report, so that afterwards everybody can count how
often it was made.
"""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aetheris_client.errors import ApplicationError
from aetheris_worker import activity
from examples.census.analysis import Figures, FileCensus, analyse
from examples.census.report import CHART_NAME, REPORT_NAME, render_chart, render_markdown
from examples.census.sources import SourceFile, find_sources
from examples.census.tally import Tally

ANALYSIS_LEDGER: Final = "analysed.log"
PUBLISH_LEDGER: Final = "published.log"
REPORT_FOLDER: Final = "report"
MAX_FILES: Final = 5_000
"""The list of files is one value, and the size of values is limited."""


@dataclass(frozen=True, slots=True)
class AnalyseRequest:
    """One file of `folder`; the ledger is in `output`."""

    folder: str
    path: str
    output: str


@dataclass(frozen=True, slots=True)
class PublishRequest:
    """What to publish, and in which folder."""

    subject: str
    approver: str
    tally: Tally
    output: str


@activity.defn
def list_files(folder: str) -> list[SourceFile]:
    """Find what there is to count.

    Raises:
        ApplicationError: There is nothing to count, or too much; trying again is no use.
    """
    try:
        files = find_sources(Path(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ApplicationError(str(error), type="BadFolder", non_retryable=True) from error
    if not 1 <= len(files) <= MAX_FILES:
        problem = f"{folder}: found {len(files)} Python files, expected 1 to {MAX_FILES}"
        raise ApplicationError(problem, type="BadFolder", non_retryable=True)
    return files


@activity.defn
def analyse_file(request: AnalyseRequest) -> FileCensus:
    """Analyse one file; one that cannot be read is a result, too."""
    append_line(
        Path(request.output, ANALYSIS_LEDGER),
        f"{request.path}\tattempt {activity.info().attempt}\tprocess {os.getpid()}",
    )
    activity.heartbeat()
    try:
        source = Path(request.folder, request.path).read_bytes()
    except (FileNotFoundError, PermissionError) as error:
        problem = f"{type(error).__name__}: {error.strerror}"
        return FileCensus(request.path, Figures(files=1), problem=problem)
    return analyse(request.path, source, activity.heartbeat)


@activity.defn
def publish(request: PublishRequest) -> str:
    """Write the report, all of it or nothing, and give its path.

    Raises:
        OSError: There is a report already; it is left as it is.
    """
    output = Path(request.output)
    append_line(output / PUBLISH_LEDGER, f"{request.approver}\tprocess {os.getpid()}")
    draft = Path(tempfile.mkdtemp(prefix="draft-", dir=output))
    markdown = render_markdown(request.subject, request.approver, request.tally)
    (draft / REPORT_NAME).write_text(markdown, encoding="utf-8")
    (draft / CHART_NAME).write_text(render_chart(request.tally), encoding="utf-8")
    draft.chmod(0o755)
    # Atomic, and an error where the target is a folder that is not empty.
    draft.rename(output / REPORT_FOLDER)
    return str(output / REPORT_FOLDER / REPORT_NAME)


def append_line(path: Path, line: str) -> None:
    """Add a line to a file that other processes add lines to at the same time."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)
