"""What the server asks gRPC for in its environment is something that this gRPC knows."""

import os
import subprocess
import sys
from pathlib import Path

_ASK = """
import sys
from aetheris_server import __main__

sys.argv = ["aetheris-server", "--version"]
try:
    __main__.main()
except SystemExit:
    pass
import os
import grpc

grpc.insecure_channel("127.0.0.1:1").close()
print(os.environ["GRPC_EXPERIMENTS"])
"""


def _ask(**environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "GRPC_EXPERIMENTS"}
    return subprocess.run(
        [sys.executable, "-c", _ASK],
        env=kept | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_the_experiments_that_the_server_turns_off_are_known_to_grpc() -> None:
    asked = _ask()

    assert asked.stdout.splitlines()[-1] == "-event_engine_client,-event_engine_listener"
    assert "experiment" not in asked.stderr


def test_an_experiment_that_grpc_does_not_know_would_be_seen() -> None:
    assert "Unknown experiment" in _ask(GRPC_EXPERIMENTS="no_such_thing").stderr


def test_what_the_environment_says_of_experiments_holds() -> None:
    asked = _ask(GRPC_EXPERIMENTS="-event_engine_listener")

    assert asked.stdout.splitlines()[-1] == "-event_engine_listener"
