"""Arguments and options that several workflow commands take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

_UNSPECIFIED = "UNSPECIFIED"


def choice(kind: type[StrEnum], help_text: str, *names: str) -> Any:
    """An option whose values are an enum's members, which its help names: the column for types is
    so narrow that it breaks them.

    Args:
        kind: The enum.
        help_text: What it is about, without a full stop.
        names: The option's; made of the parameter's where absent.
    """
    members = ", ".join(member.lower() for member in kind if member.value != _UNSPECIFIED)
    text = f"{help_text}: {members}."
    return typer.Option(*names, case_sensitive=False, metavar="NAME", help=text)


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


def given_build(build_id: str | None, name: str, is_any: bool, any_name: str) -> str:
    """The build that two options say of which one must be given; empty for any."""
    if (build_id is not None) == is_any:
        raise typer.BadParameter(f"expected either {name} or {any_name}")
    if build_id == "":
        raise typer.BadParameter(f"expected a build id; {any_name} is for none", param_hint=name)
    return build_id or ""
