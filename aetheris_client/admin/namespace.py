"""`aetheris-admin namespace`."""

from datetime import timedelta
from typing import Annotated

import typer

from aetheris_client.admin import tables
from aetheris_client.admin.inputs import parse_duration, parse_limits
from aetheris_client.admin.session import Session, command

app = typer.Typer(help="Namespaces: create, update, list, describe.", no_args_is_help=True)

_LIMIT = typer.Option(
    metavar="NAME=NUMBER", help="A limit of its own; 'default' is the server's; repeatable."
)


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
    limit: Annotated[list[str] | None, _LIMIT] = None,
) -> None:
    """Make a namespace."""
    limits = parse_limits(limit, "--limit")
    info = await session.client.operator.create_namespace(
        name,
        description=description,
        retention_interval=retention,
        limits={key: value for key, value in limits.items() if value is not None},
    )
    session.output.show(info, lambda: tables.namespace_table([info]))


@command(app, "update")
async def update(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The namespace.")],
    description: Annotated[str | None, typer.Option(help="For people.")] = None,
    retention: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration, metavar="DURATION", help="How long closed runs are to be kept."
        ),
    ] = None,
    limit: Annotated[list[str] | None, _LIMIT] = None,
) -> None:
    """Change what is given of a namespace; every host goes by it within 10 s."""
    info = await session.client.operator.update_namespace(
        name,
        description=description,
        retention_interval=retention,
        limits=parse_limits(limit, "--limit"),
    )
    session.output.show(
        info, lambda: tables.namespace_table([info]), lambda: tables.limits_table(info)
    )


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
    session.output.show(
        info, lambda: tables.namespace_table([info]), lambda: tables.limits_table(info)
    )
