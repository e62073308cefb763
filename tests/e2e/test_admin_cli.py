"""Every command of aetheris-admin as a process, against a real server and a real worker."""

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aetheris_server.storage.migrate import migrate
from aetheris_worker.testing import Replayer, read_history
from tests.e2e.admin_worker import TASK_QUEUE, Reservation
from tests.support.server_process import running_module, running_server
from tests.support.stores import SessionStores

pytestmark = pytest.mark.e2e

ADMIN = Path(sys.executable).with_name("aetheris-admin")
TIMEOUT = 60.0

Admin = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def admin(stores: SessionStores, module_postgres_dsn: str) -> Iterator[Admin]:
    """Runs a command against this module's server, with a worker beside it."""
    asyncio.run(migrate(module_postgres_dsn))
    with (
        running_server(module_postgres_dsn, stores.redis_url) as address,
        running_module("tests.e2e.admin_worker", address),
    ):

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [ADMIN, "--address", address, *arguments],
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
            )

        yield run


def answer(done: subprocess.CompletedProcess[str]) -> Any:
    """What a command that went well printed as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def start(admin: Admin, count: int) -> str:
    workflow_id = f"order-{uuid.uuid4()}"
    started = answer(
        admin(
            *("workflow", "start", "reservation", "--task-queue", TASK_QUEUE, "-o", "json"),
            *("--workflow-id", workflow_id, "--input", json.dumps({"item": "tea", "count": count})),
        )
    )
    assert started["started"]
    return workflow_id


def test_run_from_start_to_result_is_steered_and_shown(admin: Admin):
    workflow_id = start(admin, 3)
    assert answer(admin("workflow", "query", workflow_id, "is_approved")) is False
    signal = admin("workflow", "signal", workflow_id, "approve", "--input", '"ann"')
    assert signal.stdout == f"signalled approve: workflow {workflow_id}\n"
    result = answer(admin("workflow", "result", workflow_id, "--timeout", "30s", "-o", "json"))
    assert (result["status"], result["result"]) == ("COMPLETED", "3 of tea, approved by ann")
    assert "COMPLETED" in admin("workflow", "describe", workflow_id).stdout
    (run,) = answer(admin("workflow", "list", "--workflow-id", workflow_id, "-o", "json"))
    assert (run["status"], run["workflow_type"]) == ("COMPLETED", "reservation")


def test_describe_counts_the_signals_that_no_handler_takes(admin: Admin):
    workflow_id = start(admin, 1)
    for name in ("unheard of", "approve"):
        assert admin("workflow", "signal", workflow_id, name).returncode == 0
    # Answered by a worker that has seen the signals.
    assert answer(admin("workflow", "query", workflow_id, "is_approved")) is False
    assert "2 unhandled" in admin("workflow", "describe", workflow_id).stdout
    description = answer(admin("workflow", "describe", workflow_id, "-o", "json"))
    assert description["unhandled_signal_count"] == 2


def test_history_prints_every_event_in_order_and_replays(admin: Admin, tmp_path: Path):
    workflow_id = start(admin, 1)
    assert admin("workflow", "signal", workflow_id, "approve", "-i", '"ann"').returncode == 0
    lines = admin("workflow", "history", workflow_id, "--follow").stdout.splitlines()
    path = tmp_path / "history.json"
    path.write_text(admin("workflow", "history", workflow_id, "-o", "json").stdout)
    recorded = read_history(path)
    assert [int(line.split()[0]) for line in lines[1:]] == [e.event_id for e in recorded.events]
    assert [event.event_id for event in recorded.events] == list(range(1, len(lines)))
    assert recorded.events[-1].HasField("workflow_execution_completed_event_attributes")
    Replayer(workflows=[Reservation]).replay(recorded)


def test_result_of_failed_run_prints_its_chain_and_exits_1(admin: Admin):
    workflow_id = start(admin, 0)
    done = admin("workflow", "result", workflow_id, "--timeout", "30s")
    assert (done.returncode, done.stdout) == (1, "")
    first, *causes = done.stderr.splitlines()
    assert first.endswith("closed as FAILED")
    assert causes[-1] == "  caused by EmptyOrderError: nothing to reserve"


def test_cancel_and_terminate_close_runs(admin: Admin):
    cancelled, terminated = start(admin, 1), start(admin, 1)
    assert admin("workflow", "cancel", cancelled, "--reason", "late").returncode == 0
    assert admin("workflow", "terminate", terminated, "--reason", "enough").returncode == 0
    for workflow_id, status in ((cancelled, "CANCELLED"), (terminated, "TERMINATED")):
        done = admin("workflow", "result", workflow_id, "--timeout", "30s", "-o", "json")
        assert done.returncode == 1
        assert json.loads(done.stdout)["status"] == status
    refused = admin("workflow", "signal", terminated, "approve")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: workflow ")
    assert refused.stderr.endswith(" has closed\n")


def test_namespaces_queues_and_cluster_are_shown(admin: Admin):
    created = answer(admin("namespace", "create", "shop", "--retention", "48h", "-o", "json"))
    assert created["retention_interval"] == 48 * 3600
    again = admin("namespace", "create", "shop")
    assert (again.returncode, again.stderr) == (1, "error: namespace 'shop' already exists\n")
    names = [info["name"] for info in answer(admin("namespace", "list", "-o", "json"))]
    assert names == ["default", "shop"]
    assert answer(admin("namespace", "describe", "shop", "-o", "json")) == created
    start(admin, 1)
    sides = answer(admin("task-queue", "describe", TASK_QUEUE, "-o", "json"))
    assert all(side["pollers"] for side in sides)
    health = answer(admin("cluster", "health", "-o", "json"))
    assert health["owned_shard_count"] == health["shard_count"]
    assert "healthy" in admin("cluster", "health").stdout
