"""`aetheris-admin workflow`: the commands that read runs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Final

import typer
from google.protobuf import json_format

from aetheris.api.v1.common_pb2 import Payload
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.admin import tables
from aetheris_client.admin.described import describe_run
from aetheris_client.admin.inputs import parse_duration, parse_inputs, parse_time
from aetheris_client.admin.layout import Block, RowStream, Sentence
from aetheris_client.admin.options import InputFiles, Inputs, RunId, WorkflowId, choice
from aetheris_client.admin.output import Output
from aetheris_client.admin.plain import plain
from aetheris_client.admin.session import Session, command
from aetheris_client.admin.workflow import app
from aetheris_client.descriptions import ListFilter, WorkflowInfo
from aetheris_client.enums import QueryRejectCondition, WorkflowStatus
from aetheris_client.errors import WorkflowContinuedAsNewError, WorkflowFailedError

__all__ = ["app"]

PATIENCE: Final = 5.0
"""Seconds that `result` waits before it says where to look."""


@command(app, "query")
async def query(
    session: Session,
    workflow_id: WorkflowId,
    name: Annotated[str, typer.Argument(metavar="QUERY", help="The query.")],
    run_id: RunId = None,
    inputs: Inputs = None,
    input_files: InputFiles = None,
    reject_condition: Annotated[
        QueryRejectCondition | None,
        choice(QueryRejectCondition, "Refuse for a run of such a status"),
    ] = None,
) -> None:
    """Ask a run's code, and print its answer; closed runs answer too."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    answer = await handle.query(
        name,
        *parse_inputs(inputs, input_files),
        result_type=Payload,
        reject_condition=reject_condition,
    )
    value = _shown(answer)
    session.output.document(value)


@command(app, "stack")
async def stack(session: Session, workflow_id: WorkflowId, run_id: RunId = None) -> None:
    """Show where each task of a run's code waits, by file and line; a worker must poll for it."""
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    trace = await handle.query("__stack_trace", result_type=str)
    if not session.output.is_for_people:
        session.output.document(trace)
        return
    for line in trace.split("\n"):
        session.output.line(line)


@command(app, "describe")
async def describe(session: Session, workflow_id: WorkflowId, run_id: RunId = None) -> None:
    """Show what is known of a run now: its state, what is pending, or how it ended."""
    described = await describe_run(session.client, workflow_id, run_id)
    parts: list[Callable[[], Block]] = [lambda: tables.description_fields(described)]
    parts += [partial(tables.warning_line, warning) for warning in described.warnings]
    if described.run.wait_reasons:
        parts.append(lambda: tables.waits_table(described.run))
    if described.run.has_pending:
        parts.append(lambda: tables.pending_table(described.run))
    session.output.show(described.to_plain(), *parts)


@command(app, "list")
async def list_workflows(
    session: Session,
    workflow_id: Annotated[
        str | None, typer.Option("--workflow-id", "-w", help="Runs of this id.")
    ] = None,
    workflow_type: Annotated[
        str | None, typer.Option("--type", "-t", help="Runs of this type.")
    ] = None,
    status: Annotated[
        list[WorkflowStatus] | None,
        choice(WorkflowStatus, "Such runs; repeatable", "--status", "-s"),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Started then or later; ISO 8601."),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(parser=parse_time, metavar="TIME", help="Started before; ISO 8601."),
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many; 0 for all.")] = 100,
) -> None:
    """List runs, the newest first."""
    chosen = ListFilter(workflow_id, workflow_type, status or (), since, until)
    runs = session.client.list_workflows(chosen, page_size=min(limit, 1000) or 1000)
    if not session.output.is_for_people:
        with session.output.items() as items:
            async for run in _first(runs, limit):
                items.write(run)
        return
    count = await _print_runs(session.output, _first(runs, limit))
    if limit and count == limit:
        session.output.note(f"the first {limit}; --limit 0 shows all")


@command(app, "history")
async def history(
    session: Session,
    workflow_id: WorkflowId,
    run_id: RunId = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with new events, until the run closes.")
    ] = False,
) -> None:
    """Print every event of a run in order.

    As JSON the history is as the API has it, payloads and all, for aetheris_worker.testing's
    read_history; jsonl is an event a line.
    """
    handle = session.client.get_workflow_handle(workflow_id, run_id)
    events = handle.history(wait_new_event=follow)
    if session.output.is_for_people:
        await _print_events(session, events)
        return
    with session.output.items(before='{"events": [', after="]}") as items:
        async for event in events:
            items.write(json_format.MessageToDict(event))


@command(app, "result")
async def result(
    session: Session,
    workflow_id: WorkflowId,
    run_id: RunId = None,
    timeout: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration, metavar="DURATION", help="How long to wait; no limit if absent."
        ),
    ] = None,
    follow_runs: Annotated[
        bool, typer.Option(help="Go on with the run that continues a closed one.")
    ] = True,
) -> None:
    """Wait for a run to close, and print its result, or why there is none (exit 1).

    Where it goes on as new, or is tried again, it is the last run's.
    """
    handle = session.client.get_workflow_handle(workflow_id, run_id, result_type=Payload)
    # A run that nobody serves, or whose code fails on and on, is as silent as one at work.
    advice = f"still open; `aetheris-admin workflow describe {workflow_id}` says what it waits for"
    reminder = asyncio.get_running_loop().call_later(PATIENCE, session.output.note, advice)
    try:
        value = _shown(await handle.result(timeout=timeout, follow_runs=follow_runs))
    except WorkflowFailedError as error:
        _show_failure(session, error)
        raise typer.Exit(1) from None
    except WorkflowContinuedAsNewError as error:
        session.output.error(str(error))
        raise typer.Exit(1) from None
    finally:
        reminder.cancel()
    if not session.output.is_for_people:
        value = {"workflow_id": workflow_id, "status": WorkflowStatus.COMPLETED, "result": value}
    session.output.document(value)


async def _print_runs(output: Output, runs: AsyncIterator[WorkflowInfo]) -> int:
    """Print each run as it comes; how many there were."""
    rows = RowStream(tables.RUN_COLUMNS, output.width)
    count = 0
    async for run in runs:
        if count == 0:
            output.lines(rows.heading())
        output.lines(rows.row(*tables.run_cells(run)))
        count += 1
    if count == 0:
        output.lines(Sentence("No such runs.", "dim").lines(output.width))
    return count


async def _print_events(session: Session, events: AsyncIterator[HistoryEvent]) -> None:
    has_heading = False
    async for event in events:
        if not has_heading:
            session.output.line(tables.event_heading())
            has_heading = True
        session.output.line(tables.event_line(event))


def _show_failure(session: Session, error: WorkflowFailedError) -> None:
    if session.output.is_for_people:
        run = f"workflow {error.workflow_id!r} run {error.run_id!r}"
        session.output.error(f"{run} closed as {error.status}")
        for line in tables.failure_lines(error):
            session.output.error_detail(line)
    else:
        session.output.show(
            {
                "workflow_id": error.workflow_id,
                "run_id": error.run_id,
                "status": error.status,
                "failure": error.cause,
            }
        )


async def _first(runs: AsyncIterator[WorkflowInfo], limit: int) -> AsyncIterator[WorkflowInfo]:
    """At most `limit` of them; all where it is 0."""
    count = 0
    async for run in runs:
        yield run
        count += 1
        if count == limit:
            return


def _shown(value: object) -> object:
    return plain(value) if isinstance(value, Payload) else value
