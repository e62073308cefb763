"""What a type checker makes of calls: pyright passes the right ones and refuses the wrong ones."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

CALLS = Path(__file__).with_name("typed_calls.py")
ROOT = Path(__file__).parents[3]


def test_type_checker_passes_right_calls_and_refuses_wrong_ones(tmp_path: Path) -> None:
    settings = {
        "extraPaths": [str(ROOT), str(ROOT / "proto" / "gen")],
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
    }
    shutil.copy(CALLS, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    done = subprocess.run(
        [*command, "--project", tmp_path], check=False, capture_output=True, text=True, timeout=100
    )
    report = json.loads(done.stdout)
    assert report["summary"]["filesAnalyzed"] == 1
    found = {
        item["range"]["start"]["line"] + 1: item["message"].splitlines()[0]
        for item in report["generalDiagnostics"]
    }
    lines = CALLS.read_text().splitlines()
    expected = {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
    assert {number: found[number] for number in found.keys() - expected} == {}
    assert {number: lines[number - 1] for number in expected - found.keys()} == {}
