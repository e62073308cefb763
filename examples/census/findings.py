"""What the demo shows at its end."""

from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from examples.census.activities import ANALYSIS_LEDGER, PUBLISH_LEDGER
from examples.census.evidence import RecordedRun, read_ledger

_REPEATED_SHOWN: Final = 10
_ABOUT_ATTEMPTS: Final = (
    "The history and the ledger may differ: a worker may die with a file that it has not begun, "
    "and a killed server hands out again, under the same number, what it had not written down."
)


def show_findings(
    run: RecordedRun, output: Path, plain_loop_seconds: float, console: Console
) -> None:
    """Print what the history and the ledgers say, and how long each part took."""
    attempts = sum(activity.attempt_count for activity in run.analyses)
    repeated = [activity for activity in run.analyses if activity.attempt_count > 1]
    table = Table(title="What the history and the ledgers say", title_justify="left")
    table.add_column("what")
    table.add_column("count", justify="right")
    for what, count in (
        ("files in the history, by name", len({activity.path for activity in run.analyses})),
        ("results recorded for them", sum(len(activity.results) for activity in run.analyses)),
        ("attempts at them, as the history counts", attempts),
        ("attempts begun, by the workers' ledger", read_ledger(output / ANALYSIS_LEDGER).total()),
        ("files that took more than one attempt", len(repeated)),
        ("reports published, by the ledger", read_ledger(output / PUBLISH_LEDGER).total()),
        ("attempts at publishing", sum(a.attempt_count for a in run.publications)),
        ("workflow tasks completed", run.workflow_task_count),
        ("workflow tasks lost and tried again", run.lost_workflow_task_count),
        ("events in the history", run.event_count),
    ):
        table.add_row(what, f"{count:,}")
    console.print(table)
    for activity in repeated[:_REPEATED_SHOWN]:
        console.print(f"  {activity.path}: {activity.attempt_count} attempts, one result")
    console.print(_ABOUT_ATTEMPTS, style="dim")
    table = Table(title="How long each part took", title_justify="left")
    table.add_column("part")
    table.add_column("seconds", justify="right")
    for name, seconds in run.parts():
        table.add_row(name, f"{seconds:.2f}")
    table.add_row("the plain loop, for comparison", f"{plain_loop_seconds:.2f}")
    console.print(table)
