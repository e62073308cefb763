"""What every command has: the shared options, a client, and the way errors are reported.

Exit codes: 0 done; 1 the server said no, or was not there, told in one line; 2 the command line is
wrong; 130 interrupted; 141 whoever read the output has stopped reading.
"""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Concatenate, Final, ParamSpec

import typer

from aetheris_client.admin.inputs import check_text
from aetheris_client.admin.output import Output, OutputFormat
from aetheris_client.admin.plain import CONVERTER
from aetheris_client.admin.text import one_line
from aetheris_client.client import DEFAULT_ADDRESS, DEFAULT_NAMESPACE, Client
from aetheris_client.errors import AetherisError

P = ParamSpec("P")

# As a shell reports a program that SIGPIPE ended.
_BROKEN_PIPE_EXIT_CODE: Final = 141

CONNECT_TIMEOUT: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class SharedOptions:
    """What can be said before the command or after it; None where it was not said."""

    address: str | None = None
    namespace: str | None = None
    output: OutputFormat | None = None

    def overridden_by(self, later: "SharedOptions") -> "SharedOptions":
        return SharedOptions(
            later.address or self.address,
            later.namespace or self.namespace,
            later.output or self.output,
        )


@dataclass(frozen=True, slots=True)
class Session:
    """One run of one command."""

    client: Client
    output: Output


Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help=f"The server; $AETHERIS_ADDRESS, else {DEFAULT_ADDRESS}, if absent.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help=f"The namespace; $AETHERIS_NAMESPACE, else {DEFAULT_NAMESPACE}, if absent.",
        show_default=False,
    ),
]
OutputChoice = Annotated[
    OutputFormat | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FORMAT",
        help="table (if absent) for people; json, or jsonl with a line per item, for programs.",
        case_sensitive=False,
        show_default=False,
    ),
]
_SHARED: Final = {"address": Address, "namespace": Namespace, "output": OutputChoice}


def command(
    app: typer.Typer, name: str
) -> Callable[[Callable[Concatenate[Session, P], Awaitable[None]]], None]:
    """Register a coroutine function as a command that also takes the shared options.

    The function is called with a Session, then with its own arguments and options.
    """

    def register(function: Callable[Concatenate[Session, P], Awaitable[None]]) -> None:
        def run(ctx: typer.Context, **arguments: Any) -> None:
            check_text(arguments)
            shared = SharedOptions(**{option: arguments.pop(option) for option in _SHARED})
            before: SharedOptions = ctx.obj or SharedOptions()
            check_text({"--address": before.address, "--namespace": before.namespace})
            options = before.overridden_by(shared)
            output = Output(options.output or OutputFormat.TABLE)
            try:
                asyncio.run(_connect_and_call(options, output, function, arguments))
                # Here, and not when the interpreter ends, where a closed pipe is a traceback.
                sys.stdout.flush()
            except AetherisError as error:
                output.error(one_line(str(error)))
                raise typer.Exit(1) from None
            except BrokenPipeError:
                output.discard()
                raise typer.Exit(_BROKEN_PIPE_EXIT_CODE) from None
            except OSError as error:
                output.discard()
                output.error(f"the answer cannot be written: {error.strerror or error}")
                raise typer.Exit(1) from None

        _declare(run, function)
        app.command(name)(run)

    return register


async def _connect_and_call(
    options: SharedOptions,
    output: Output,
    function: Callable[..., Awaitable[None]],
    arguments: dict[str, Any],
) -> None:
    client = await Client.connect(
        options.address,
        namespace=options.namespace,
        data_converter=CONVERTER,
        connect_timeout=CONNECT_TIMEOUT,
    )
    async with client:
        await function(Session(client, output), **arguments)


def _declare(run: Callable[..., None], function: Callable[..., object]) -> None:
    """Give `run` the name, the help and the parameters that typer is to see."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    shared = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for option, kind in _SHARED.items()
    ]
    parameters = [
        context,
        *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own),
        *shared,
    ]
    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__signature__ = signature.replace(parameters=parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
