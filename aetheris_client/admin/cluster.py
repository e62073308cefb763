"""`aetheris-admin cluster`."""

import typer

from aetheris_client.admin import tables
from aetheris_client.admin.session import Session, command

app = typer.Typer(help="The cluster as a whole.", no_args_is_help=True)


@command(app, "health")
async def health(session: Session) -> None:
    """Show whether the parts of the cluster are well; exit 1 if one is not."""
    cluster = await session.client.operator.describe_cluster()
    session.output.show(
        cluster,
        lambda: tables.cluster_table(cluster),
        lambda: tables.components_table(cluster),
        lambda: tables.hosts_table(cluster),
    )
    if not cluster.is_healthy:
        raise typer.Exit(1)
