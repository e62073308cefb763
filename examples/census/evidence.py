"""What a census left behind: its history, its ledgers, its report; and whether they agree with a
plain loop over the same files.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from aetheris.api.v1.history_pb2 import EventType, HistoryEvent
from aetheris_client import Client, WorkflowHandle
from examples.census.activities import (
    ANALYSIS_LEDGER,
    PUBLISH_LEDGER,
    REPORT_FOLDER,
    AnalyseRequest,
    analyse_file,
    publish,
)
from examples.census.analysis import FileCensus, analyse
from examples.census.report import CHART_NAME, REPORT_NAME, render_chart, render_markdown
from examples.census.sources import find_sources
from examples.census.tally import tally
from examples.census.workflow import CensusRequest, CensusResult


@dataclass(slots=True)
class RecordedActivity:
    """One activity, as the history has it. `attempt_count` is 0 until it has closed."""

    type: str
    path: str
    scheduled_time: datetime
    attempt_count: int = 0
    results: list[FileCensus] = field(default_factory=list[FileCensus])
    closed_time: datetime | None = None


@dataclass(slots=True)
class RecordedRun:
    """The history of a census, read. `lost_workflow_tasks` timed out or failed."""

    activities: dict[int, RecordedActivity] = field(default_factory=dict[int, RecordedActivity])
    event_count: int = 0
    workflow_task_count: int = 0
    lost_workflow_task_count: int = 0
    started_time: datetime | None = None
    approved_time: datetime | None = None

    @property
    def analyses(self) -> list[RecordedActivity]:
        """The activities that analysed files."""
        return self._of_type(analyse_file.__name__)

    @property
    def publications(self) -> list[RecordedActivity]:
        """The activities that published; one, if all went well."""
        return self._of_type(publish.__name__)

    def parts(self) -> Iterator[tuple[str, float]]:
        """How long each part took, in seconds; of a run that has completed."""
        publication, analyses = self.publications[0], self.analyses
        marks = [
            ("", self.started_time),
            ("listing the files", min(a.scheduled_time for a in analyses)),
            ("analysing them", max(a.closed_time for a in analyses if a.closed_time)),
            ("waiting for the approval", self.approved_time),
            ("publishing", publication.closed_time),
        ]
        for (_, begin), (name, end) in pairwise(marks):
            if begin is not None and end is not None:
                yield name, (end - begin).total_seconds()

    def _of_type(self, name: str) -> list[RecordedActivity]:
        return [activity for activity in self.activities.values() if activity.type == name]


async def read_run(client: Client, handle: WorkflowHandle[CensusResult]) -> RecordedRun:
    """Fetch the history and read it."""
    run = RecordedRun()
    async for event in handle.history():
        run.event_count += 1
        _read_event(run, event, client)
    return run


def _read_event(run: RecordedRun, event: HistoryEvent, client: Client) -> None:
    time = event.event_time.ToDatetime(UTC)
    match event.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
            run.started_time = time
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
            run.approved_time = run.approved_time or time
        case EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
            run.workflow_task_count += 1
        case (
            EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT | EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        ):
            run.lost_workflow_task_count += 1
        case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            scheduled = event.activity_task_scheduled_event_attributes
            path = ""
            if scheduled.activity_type.name == analyse_file.__name__:
                [request] = client.data_converter.from_payloads(scheduled.input, [AnalyseRequest])
                path = request.path
            run.activities[event.event_id] = RecordedActivity(
                scheduled.activity_type.name, path, time
            )
        case EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            started = event.activity_task_started_event_attributes
            run.activities[started.scheduled_event_id].attempt_count = started.attempt
        case EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            completed = event.activity_task_completed_event_attributes
            activity = run.activities[completed.scheduled_event_id]
            activity.closed_time = time
            if activity.path:
                activity.results += client.data_converter.from_payloads(
                    completed.result, [FileCensus]
                )
        case _:
            pass


def plain_loop(folder: Path) -> dict[str, FileCensus]:
    """The same census without any of this: the figures that must come out."""
    return {
        file.path: analyse(file.path, (folder / file.path).read_bytes())
        for file in find_sources(folder)
    }


def read_ledger(path: Path) -> Counter[str]:
    """How many lines begin with each name."""
    return Counter(line.partition("\t")[0] for line in path.read_text().splitlines())


def find_differences(
    run: RecordedRun, expected: Mapping[str, FileCensus], request: CensusRequest, approver: str
) -> list[str]:
    """Everything that is not as it must be, a sentence each; empty if all is well."""
    output = Path(request.output)
    begun = read_ledger(output / ANALYSIS_LEDGER)
    publications = read_ledger(output / PUBLISH_LEDGER).total()
    return [
        *_differences_of_files(run, expected),
        *(f"{path}: in no worker's ledger" for path in sorted(expected.keys() - begun.keys())),
        *([f"published {publications} times"] if publications != 1 else []),
        *_differences_of_report(expected, request, approver),
    ]


def _differences_of_files(run: RecordedRun, expected: Mapping[str, FileCensus]) -> Iterator[str]:
    recorded = Counter(activity.path for activity in run.analyses)
    for path in sorted(expected.keys() | recorded.keys()):
        if recorded[path] != 1 or path not in expected:
            yield f"{path}: scheduled {recorded[path]} times, expected {int(path in expected)}"
    for activity in run.analyses:
        if activity.results != [expected.get(activity.path)]:
            yield f"{activity.path}: recorded {activity.results}, not {expected.get(activity.path)}"


def _differences_of_report(
    expected: Mapping[str, FileCensus], request: CensusRequest, approver: str
) -> Iterator[str]:
    total = tally(expected.values())
    folder = Path(request.output, REPORT_FOLDER)
    for name, text in (
        (REPORT_NAME, render_markdown(request.subject, approver, total)),
        (CHART_NAME, render_chart(total)),
    ):
        if (folder / name).read_text(encoding="utf-8") != text:
            yield f"{folder / name}: is not what the plain loop gives"
