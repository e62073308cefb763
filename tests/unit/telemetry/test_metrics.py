import os
import subprocess
import sys
from pathlib import Path

_COUNT = """
from prometheus_client import REGISTRY
from aetheris_server.telemetry import counter

counter("tries", "Tries.").inc()
print(REGISTRY.get_sample_value("aetheris_tries_total"))
"""


def test_metrics_stay_in_memory_where_others_keep_theirs_in_files(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        counted = subprocess.run(
            [sys.executable, "-c", _COUNT],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert counted.stdout == "1.0\n", counted.stderr
    assert not list(tmp_path.iterdir())
