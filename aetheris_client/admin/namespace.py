"""`aetheris-admin namespace`."""

from datetime import timedelta
from typing import Annotated

import typer

from aetheris_client.admin import tables
from aetheris_client.admin.inputs import parse_duration
from aetheris_client.admin.session import Session, command

app = typer.Typer(help="Namespaces: create, list, describe.", no_args_is_help=True)


@command(app, "create")
async def create(
    session: Session,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="1 to 255 letters, digits, '.', '_' and '-'.")
    ],
    description: Annotated[str, typer.Option(help="For people.")] = "",
    retention: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="How long closed runs are to be kept, for example 72h; recorded, not applied yet.",
        ),
    ] = None,
) -> None:
    """Make a namespace."""
    info = await session.client.operator.create_namespace(
        name, description=description, retention_interval=retention
    )
    session.output.show(info, lambda: tables.namespace_table([info]))


@command(app, "list")
async def list_namespaces(session: Session) -> None:
    """List the namespaces, by name."""
    namespaces = session.client.operator.list_namespaces()
    if session.output.is_for_people:
        found = [info async for info in namespaces]
        session.output.show(found, lambda: tables.namespace_table(found))
        return
    with session.output.items() as items:
        async for info in namespaces:
            items.write(info)


@command(app, "describe")
async def describe(
    session: Session,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The namespace; that of --namespace if absent."),
    ] = None,
) -> None:
    """Show one namespace."""
    info = await session.client.operator.describe_namespace(name)
    session.output.show(info, lambda: tables.namespace_table([info]))
