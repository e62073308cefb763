"""The main job, and what it survives: the demo kills its worker twice and its server once, by
SIGKILL, and shows that every file was recorded exactly once all the same.
"""

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from aetheris_client import WorkflowHandle
from aetheris_client.enums import PendingActivityState
from aetheris_client.errors import AetherisError, DeadlineExceededError, UnavailableError
from examples.census import evidence, workflow
from examples.census.findings import show_findings
from examples.census.processes import SERVER, Cluster, DemoError
from examples.census.sources import find_sources, standard_library
from examples.census.workflow import TASK_QUEUE, Census, CensusRequest, CensusResult, Stage

WORKFLOW_ID: Final = "census"
APPROVER: Final = "the demo"
DEADLINE: Final = 300.0
_POLL_INTERVAL: Final = 0.1
_QUERY_TIMEOUT: Final = timedelta(seconds=3)
_BUSY_TRIES: Final = 100
_TASK_TIMEOUT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Outage:
    """Kill a program once a share of the files (0 to 1) is done."""

    share: float
    program: str


MIN_FILES: Final = 200

PLAN: Final = (Outage(0.2, "worker-1"), Outage(0.45, SERVER), Outage(0.7, "worker-2"))


class Watch:
    """Follows a run on the screen, and brings about the outages when their time has come."""

    def __init__(
        self,
        cluster: Cluster,
        handle: WorkflowHandle[CensusResult],
        result: asyncio.Task[CensusResult],
        plan: Sequence[Outage],
        console: Console,
    ) -> None:
        self._cluster = cluster
        self._handle = handle
        self._result = result
        self._plan = list(plan)
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task(Stage.LISTING, total=None)

    async def wait_analysed(self) -> None:
        """Return once every file is done and every outage was survived.

        Raises:
            DemoError: A program ended by itself, or the files were done before the last outage.
            WorkflowFailedError: The run has failed.
        """
        with self._bar:
            while True:
                self._cluster.check_running()
                if self._result.done():
                    await self._result
                progress = await self._try_progress()
                if progress is not None and progress.stage is Stage.WAITING:
                    break
                if progress is not None and progress.files:
                    await self._keep_to_plan(progress)
                await asyncio.sleep(_POLL_INTERVAL)
        if self._plan:
            missed = ", ".join(outage.program for outage in self._plan)
            raise DemoError(f"all files were done before these could be killed: {missed}")

    async def _try_progress(self) -> workflow.Progress | None:
        """None while no server or no worker answers."""
        try:
            progress = await self._handle.query(Census.progress, timeout=_QUERY_TIMEOUT)
        except (UnavailableError, DeadlineExceededError):
            return None
        self._bar.update(
            self._task,
            description=progress.stage,
            completed=progress.done,
            total=progress.files or None,
        )
        return progress

    async def _keep_to_plan(self, progress: workflow.Progress) -> None:
        if not self._plan or progress.done < self._plan[0].share * progress.files:
            return
        program = self._cluster.programs[self._plan.pop(0).program]
        circumstances = f"at {progress.done} of {progress.files} files"
        if program.name != SERVER:
            held = await self._wait_busy(f"{program.name}-{program.pid}")
            circumstances += f", with {held} files in its hands"
        pid = program.pid
        await program.kill()
        begin_time = time.monotonic()
        self._bar.print(f"[red]kill -9[/red] {program.name} (process {pid}) {circumstances}")
        await program.start()
        while program.name == SERVER and await self._try_progress() is None:
            self._cluster.check_running()
        took = time.monotonic() - begin_time
        self._bar.print(f"  started again after {took:.1f} s, as process {program.pid}")

    async def _wait_busy(self, identity: str) -> int:
        """Return how many files a worker has in its hands, once it has one or, failing that, after
        a while.
        """
        for _ in range(_BUSY_TRIES):
            run = await self._handle.describe()
            held = sum(
                activity.state is PendingActivityState.STARTED
                and activity.last_worker_identity == identity
                for activity in run.pending_activities
            )
            if held:
                return held
        return 0


async def take_census(
    folder: Path, output: Path, plan: Sequence[Outage], console: Console, window: int = 24
) -> None:
    """Run the census of a folder through all outages, and prove its figures.

    Args:
        folder: What to count.
        output: An empty folder for everything that is written.
        plan: By rising share.
        console: Where to tell of it.
        window: Files that are in work at a time, at most.

    Raises:
        DemoError: Something is not as it must be.
        AetherisError: The run did not complete, or a call failed.
    """
    request = CensusRequest(str(folder), str(output), folder.name, window)
    logs = output / "logs"
    console.print(f"Starting a server and two workers; logs are in {logs}", soft_wrap=True)
    async with Cluster(output) as cluster, await cluster.connect() as client:
        handle = await client.start_workflow(
            Census.run, request, id=WORKFLOW_ID, task_queue=TASK_QUEUE, task_timeout=_TASK_TIMEOUT
        )
        awaited = asyncio.create_task(handle.result(timeout=timedelta(seconds=DEADLINE)))
        try:
            await Watch(cluster, handle, awaited, plan, console).wait_analysed()
            console.print("All files are done; the run waits for the approval. Approving.")
            await handle.signal(Census.approve, APPROVER)
            result = await awaited
        finally:
            awaited.cancel()
            await asyncio.wait([awaited])
        run = await evidence.read_run(client, handle)
    console.print("Comparing with a plain loop over the same files.")
    begin_time = time.monotonic()
    expected = await asyncio.to_thread(evidence.plain_loop, folder)
    show_findings(run, output, time.monotonic() - begin_time, console)
    differences = evidence.find_differences(run, expected, request, APPROVER)
    if differences:
        raise DemoError("\n".join([f"{len(differences)} differences:", *differences[:20]]))
    console.print("[green]No differences.[/green] Every file was recorded exactly once.")
    console.print(f"The report: {result.report}", soft_wrap=True)


async def run(folder: Path, output: Path, console: Console) -> None:
    """The census with the whole plan, within DEADLINE."""
    async with asyncio.timeout(DEADLINE):
        await take_census(folder, output, PLAN, console)


def main() -> None:
    """The command line; exit code 1 where anything went wrong, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m examples.census.demo", description=__doc__)
    parser.add_argument(
        "--folder",
        type=Path,
        default=standard_library(),
        help=f"what to count, at least {MIN_FILES} Python files (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, help="a new folder for the report and all data")
    arguments = parser.parse_args()
    _check_size(parser, arguments.folder)
    # gRPC says so on the screen whenever a process that uses it starts another one.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    console = Console(highlight=False)
    output = _make_output(parser, arguments.output)
    try:
        asyncio.run(run(arguments.folder.resolve(), output, console))
    except KeyboardInterrupt:
        console.print(f"[red]Stopped.[/red] Everything is left in {output}", soft_wrap=True)
        raise SystemExit(130) from None
    except TimeoutError:
        console.print(f"[red]Not done within {DEADLINE:g} s.[/red]")
        console.print(f"Everything is left in {output}", soft_wrap=True)
        raise SystemExit(1) from None
    except (DemoError, AetherisError, OSError) as error:
        console.print("[red]Failed:[/red]", escape(_explain(error)))
        console.print(f"Everything is left in {output}", soft_wrap=True)
        raise SystemExit(1) from None
    shutil.rmtree(output / "server")


def _check_size(parser: argparse.ArgumentParser, folder: Path) -> None:
    """Refuse a folder whose census would be over before everything could be killed."""
    count = len(find_sources(folder.resolve())) if folder.is_dir() else MIN_FILES
    if count < MIN_FILES:
        parser.error(f"{folder} has {count} Python files; the kills need time for {MIN_FILES}")


def _explain(error: BaseException) -> str:
    """The error, and what led to it."""
    cause = error.__cause__
    if cause is None:
        return str(error)
    # Some messages already end with that of the cause.
    return f"{str(error).removesuffix(f': {cause}')}: {_explain(cause)}"


def _make_output(parser: argparse.ArgumentParser, output: Path | None) -> Path:
    if output is None:
        made = Path(tempfile.mkdtemp(prefix="aetheris-census-"))
        # Where this process is root, Postgres runs as another account, which passes through here.
        made.chmod(0o711)
        return made
    output = output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    if any(output.iterdir()):
        parser.error(f"--output: {output} is not empty")
    return output


if __name__ == "__main__":
    sys.exit(main())
