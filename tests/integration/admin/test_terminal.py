"""aetheris-admin as a process: on terminals of every kind, in pipes, interrupted."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aetheris.api.v1.common_pb2 import WorkflowExecution, WorkflowType
from aetheris.api.v1.workflow_pb2 import (
    WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW,
    WorkflowExecutionInfo,
)
from aetheris.api.v1.workflow_service_pb2 import ListWorkflowsRequest, ListWorkflowsResponse
from tests.support.canned_server import CannedServer, served_on_a_thread

pytestmark = pytest.mark.integration

ADMIN = str(Path(sys.executable).with_name("aetheris-admin"))
SERVER = str(Path(sys.executable).with_name("aetheris-server"))
TIMEOUT = 30
RUN_ID = "01a1fbd4-4364-72db-b9a6-f8086dc216fd"
WORKFLOW_ID = "order/é-4711-of-a-customer-with-a-long-name"


@pytest.fixture
def server() -> Iterator[CannedServer]:
    with served_on_a_thread() as server:
        server.on("ListWorkflows", page(1))
        yield server


def page(count: int, token: bytes = b"") -> ListWorkflowsResponse:
    info = WorkflowExecutionInfo(
        execution=WorkflowExecution(workflow_id=WORKFLOW_ID, run_id=RUN_ID),
        workflow_type=WorkflowType(name="reservation"),
        status=WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW,
    )
    return ListWorkflowsResponse(executions=[info] * count, next_page_token=token)


def environment(server: CannedServer, **variables: str) -> dict[str, str]:
    return {**os.environ, "AETHERIS_ADDRESS": server.address, **variables}


def run_admin(
    server: CannedServer, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [ADMIN, *arguments],
        capture_output=True,
        env=environment(server, **variables),
        timeout=TIMEOUT,
        check=False,
    )


def on_terminal(server: CannedServer, *arguments: str, **variables: str) -> str:
    """What the command prints on a terminal."""
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [ADMIN, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(server, TERM="xterm", **variables),
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0
        return os.read(ours, 100_000).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_ids_on_a_terminal_of_any_width_are_whole(server: CannedServer, columns: str):
    shown = on_terminal(server, "workflow", "list", COLUMNS=columns, NO_COLOR="1")
    assert RUN_ID in shown.split()
    assert WORKFLOW_ID in shown.split()
    if columns != "40":
        assert all(len(line) <= int(columns) for line in shown.split("\n"))


def test_terminal_gets_colours_unless_no_color_is_set(server: CannedServer):
    assert "\x1b[" in on_terminal(server, "workflow", "list")
    assert "\x1b" not in on_terminal(server, "workflow", "list", NO_COLOR="1")


def test_pipe_gets_a_plain_line_for_each_run(server: CannedServer):
    server.on("ListWorkflows", page(3))
    done = run_admin(server, "workflow", "list", COLUMNS="80")
    lines = done.stdout.decode().splitlines()
    assert b"\x1b" not in done.stdout
    assert [line.split()[1:3] for line in lines[1:]] == [[WORKFLOW_ID, RUN_ID]] * 3


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
def test_ascii_terminal_gets_escapes_and_no_traceback(server: CannedServer, output: str):
    done = run_admin(
        server,
        *("workflow", "list", "-o", output),
        LC_ALL="C",
        PYTHONUTF8="0",
        PYTHONIOENCODING="ascii",
    )
    assert (done.returncode, done.stderr) == (0, b"")
    text = done.stdout.decode("ascii")
    assert "4711" in text
    if output == "json":
        assert json.loads(text)[0]["workflow_id"] == WORKFLOW_ID


@pytest.mark.parametrize("arguments", [["--help"], ["workflow", "--help"], ["workflow", "x"]])
def test_help_on_an_ascii_terminal_has_no_traceback(server: CannedServer, arguments: list[str]):
    done = run_admin(server, *arguments, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("output", ["table", "json", "jsonl"])
@pytest.mark.parametrize("count", [1, 2000])
def test_closed_pipe_ends_the_command_without_a_word(server: CannedServer, output: str, count: int):
    server.on("ListWorkflows", page(count))
    with subprocess.Popen(
        [ADMIN, "workflow", "list", "--limit", "0", "-o", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(server),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert (process.wait(TIMEOUT), process.stderr.read()) == (141, b"")


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_list_shows_the_first_rows_before_the_last_are_fetched_and_ends_on_ctrl_c(
    server: CannedServer, output: str
):
    asked = threading.Event()

    async def never(_: ListWorkflowsRequest) -> ListWorkflowsResponse:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    server.on("ListWorkflows", page(2, token=b"more"), never)
    with subprocess.Popen(
        [ADMIN, "workflow", "list", "--limit", "0", "-o", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(server),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any(RUN_ID.encode() in process.stdout.readline() for _ in range(2))
        assert asked.wait(TIMEOUT)
        process.send_signal(signal.SIGINT)
        assert (process.wait(TIMEOUT), process.stderr.read()) == (130, b"")


@pytest.mark.parametrize("command", [ADMIN, SERVER])
def test_version_of_each_command_is_shown(command: str):
    done = subprocess.run(
        [command, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=True
    )
    assert done.stdout == f"{Path(command).name} 0.1.0\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["workflow", "describe", b"a\xff"],
        ["workflow", "list", "--type", b"\xff"],
        ["workflow", "list", "--namespace", b"\xff"],
        ["--address", b"\xff:1", "cluster", "health"],
        ["workflow", "start", "T", "-q", "q", "--memo", b"a=\xff"],
    ],
)
def test_argument_that_is_not_utf_8_is_a_usage_error(
    server: CannedServer, arguments: list[str | bytes]
):
    done = subprocess.run(
        [ADMIN, *arguments],
        capture_output=True,
        env=environment(server),
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 2
    assert b"which is not UTF-8" in done.stderr


@pytest.mark.parametrize("form", ["table", "json"])
def test_answer_that_finds_no_room_is_one_clear_line_and_exit_1(
    server: CannedServer, form: str
) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [ADMIN, "workflow", "list", "-o", form],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(server),
            timeout=TIMEOUT,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"error: the answer cannot be written: No space left on device\n"
