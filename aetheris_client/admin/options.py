"""Arguments and options that several workflow commands take."""

from pathlib import Path
from typing import Annotated

import typer

WorkflowId = Annotated[str, typer.Argument(metavar="WORKFLOW_ID", help="The workflow id.")]
RunId = Annotated[
    str | None, typer.Option("--run-id", "-r", help="One run of it; the newest if absent.")
]
Reason = Annotated[str, typer.Option(help="Why, for people.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="JSON", help="An argument; repeatable, in order."),
]
InputFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--input-file",
        metavar="PATH",
        help="A file with one argument as JSON, '-' for standard input; repeatable, after --input.",
    ),
]
