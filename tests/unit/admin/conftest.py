"""A server with canned answers, and the command line that asks it."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest
from typer.testing import CliRunner, Result

from aetheris_client.admin.cli import app
from tests.support.canned_server import CannedServer, served_on_a_thread

Run = Callable[..., Result]
M = TypeVar("M")


def make(kind: Callable[..., M], **fields: Any) -> M:
    """A message from plain dicts, which the generated types do not know of."""
    return kind(**fields)


@pytest.fixture
def server() -> Iterator[CannedServer]:
    """On a thread of its own: each command brings its own event loop."""
    with served_on_a_thread() as server:
        yield server


@pytest.fixture
def run(server: CannedServer, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("AETHERIS_ADDRESS", server.address)
    return lambda *arguments: CliRunner().invoke(app, arguments)
