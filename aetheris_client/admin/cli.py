"""`aetheris-admin`: the entry point and the options that stand before a command."""

from importlib.metadata import version
from typing import Annotated

import typer

from aetheris_client.admin.activity import app as activity_app
from aetheris_client.admin.cluster import app as cluster_app
from aetheris_client.admin.namespace import app as namespace_app
from aetheris_client.admin.session import Address, Namespace, OutputChoice, SharedOptions
from aetheris_client.admin.task_queue import app as task_queue_app
from aetheris_client.admin.workflow_updates import app as workflow_app

app = typer.Typer(
    name="aetheris-admin",
    help="Start, steer and watch workflows; look after namespaces, task queues and the cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(workflow_app, name="workflow")
app.add_typer(activity_app, name="activity")
app.add_typer(task_queue_app, name="task-queue")
app.add_typer(namespace_app, name="namespace")
app.add_typer(cluster_app, name="cluster")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"aetheris-admin {version('aetheris-workflow')}")
        raise typer.Exit


@app.callback()
def take_shared_options(
    ctx: typer.Context,
    address: Address = None,
    namespace: Namespace = None,
    output: OutputChoice = None,
    is_version_asked: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Start, steer and watch workflows; look after namespaces, task queues and the cluster."""
    ctx.obj = SharedOptions(address, namespace, output)


def main() -> None:
    """The console script."""
    app()
