"""The census: list the files, analyse each, combine, wait for an approval, publish once."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from aetheris_worker import RetryPolicy, workflow
from examples.census.activities import (
    AnalyseRequest,
    PublishRequest,
    analyse_file,
    list_files,
    publish,
)
from examples.census.analysis import Figures
from examples.census.sources import SourceFile
from examples.census.tally import Tally

TASK_QUEUE: Final = "census"
PARSE: Final = "parse"
"""What a worker must be able to do to get the heavy files."""

_HEARTBEAT_TIMEOUT: Final = timedelta(seconds=3)
_RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200), maximum_interval=timedelta(seconds=2)
)


class Stage(StrEnum):
    """How far a census is."""

    LISTING = "listing"
    ANALYSING = "analysing"
    WAITING = "waiting for approval"
    PUBLISHING = "publishing"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class CensusRequest:
    """What to count.

    Attributes:
        folder: Seen by every worker.
        output: An existing folder for the report and the ledgers.
        window: Files that are in work at a time, at most.
    """

    folder: str
    output: str
    subject: str
    window: int = 24


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a census is: `done` of `files`."""

    stage: Stage
    files: int
    done: int


@dataclass(frozen=True, slots=True)
class CensusResult:
    """Where the report is, and the figures of all files together."""

    report: str
    total: Figures


@workflow.defn
class Census:
    """One census of one folder."""

    def __init__(self) -> None:
        self._stage = Stage.LISTING
        self._file_count = 0
        self._tally = Tally()
        self._approver: str | None = None

    @workflow.run
    async def run(self, request: CensusRequest) -> CensusResult:
        """Take the census.

        Raises:
            ActivityError: The folder cannot be listed, or the report not be published.
        """
        files = await workflow.execute_activity(
            list_files,
            request.folder,
            start_to_close_timeout=timedelta(seconds=30),
            retry_policy=_RETRY,
        )
        self._file_count = len(files)
        self._stage = Stage.ANALYSING
        todo = iter(files)
        await asyncio.gather(*(self._analyse(request, todo) for _ in range(request.window)))
        self._stage = Stage.WAITING
        await workflow.wait_condition(lambda: self._approver is not None)
        self._stage = Stage.PUBLISHING
        report = await workflow.execute_activity(
            publish,
            PublishRequest(request.subject, self._approver or "", self._tally, request.output),
            start_to_close_timeout=timedelta(seconds=30),
            at_most_once=True,
        )
        self._stage = Stage.DONE
        return CensusResult(report, self._tally.total)

    async def _analyse(self, request: CensusRequest, todo: Iterator[SourceFile]) -> None:
        """One of the lanes that share the files to do: takes the next one until there is none."""
        for file in todo:
            census = await workflow.execute_activity(
                analyse_file,
                AnalyseRequest(request.folder, file.path, request.output),
                start_to_close_timeout=timedelta(seconds=30),
                heartbeat_timeout=_HEARTBEAT_TIMEOUT,
                retry_policy=_RETRY,
                capabilities=[PARSE] if file.is_heavy else [],
            )
            self._tally.add(census)

    @workflow.signal
    def approve(self, approver: str) -> None:
        """Let the report be published. The first approval counts."""
        self._approver = self._approver or approver

    @workflow.query
    def progress(self) -> Progress:
        """How far it is."""
        return Progress(self._stage, self._file_count, self._tally.total.files)
