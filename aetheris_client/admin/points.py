"""The options that name the point from which a run begins again."""

from typing import Annotated

import typer

from aetheris_client.admin.options import choice
from aetheris_client.resets import ReapplyExclude, ResetPoint

First = Annotated[bool, typer.Option("--first", help="The point: the first workflow task.")]
Last = Annotated[bool, typer.Option("--last", help="The point: the last that was completed.")]
Event = Annotated[
    int | None,
    typer.Option("--event", metavar="ID", help="The point: the workflow task of this event."),
]
Build = Annotated[
    str | None,
    typer.Option("--build", metavar="BUILD_ID", help="The point: the last that a build completed."),
]
Exclude = Annotated[
    list[ReapplyExclude] | None,
    choice(ReapplyExclude, "What of the later events is left out; repeatable", "--exclude"),
]
NewRunRequestId = Annotated[
    str | None, typer.Option("--request-id", help="Makes it idempotent; a new one if absent.")
]


def to_point(*, first: bool, last: bool, event: int | None, build: str | None) -> ResetPoint:
    """The one point that was named.

    Raises:
        typer.BadParameter: None was, or several.
    """
    points = [
        *([ResetPoint.first()] if first else []),
        *([ResetPoint.last()] if last else []),
        *([ResetPoint.event(event)] if event is not None else []),
        *([ResetPoint.build(build)] if build is not None else []),
    ]
    if len(points) != 1:
        raise typer.BadParameter(
            f"expected one of --first, --last, --event and --build, found {len(points)}"
        )
    return points[0]
