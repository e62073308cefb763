"""Where Postgres finds its programs and keeps its data when its account cannot go where ours can.

Where this process is root, the data folder and the virtual environment are often inside a folder
that is root's alone, such as /root. Then the programs are copied to `HOME`, and the data lives
there too, behind a link in the data folder. The mode of no existing folder is changed.
"""

import hashlib
import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from aetheris_server.embedded.account import Account
from aetheris_server.embedded.errors import EmbeddedError
from aetheris_server.telemetry import get_logger

HOME: Final = Path("/var/lib/aetheris")

_log = get_logger(__name__)


def place_programs(programs: Path, libraries: Path, account: Account) -> Path:
    """The folder of Postgres' programs for an account: as installed, or a copy that it can run.

    Args:
        programs: As installed: `<package>/<version>/bin`.
        libraries: What they load, as installed beside the package; copied along if it is there.
        account: Who is to run them.
    """
    installed = programs.parent
    if account.can_run(installed):
        return programs
    # Another version of the wheel has other files, and so another copy.
    stamp = f"{installed}:{(programs / 'postgres').stat().st_mtime_ns}"
    home = _open_home() / f"programs-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    copy = home / installed.parent.name / installed.name
    if not home.exists():
        workspace = home.with_name(f"{home.name}-{secrets.token_hex(4)}")
        _copy(installed, workspace / installed.parent.name / installed.name)
        if libraries.exists():
            _copy(libraries, workspace / libraries.name)
        _open_tree(workspace)
        try:
            workspace.rename(home)
        except OSError:
            # Another process was quicker.
            shutil.rmtree(workspace)
        _log.info("copied PostgreSQL to where it can run", folder=str(home), account=account.name)
    return copy / "bin"


def place_data(folder: Path, account: Account) -> Path:
    """The folder for Postgres' data: `folder`, or what the link in its place points to.

    The caller holds the lock of the data folder.
    """
    if folder.is_symlink() or account.can_reach(folder):
        return folder.resolve()
    elsewhere = _open_home() / f"data-{secrets.token_hex(8)}"
    if folder.exists():
        # Of a version that opened the folders above it instead.
        shutil.move(folder, elsewhere)
    folder.symlink_to(elsewhere)
    _log.warning(
        "PostgreSQL cannot reach the data folder as the account it runs as; its data is elsewhere",
        account=account.name,
        data_folder=str(folder.parent),
        postgres_folder=str(elsewhere),
    )
    return elsewhere


def _open_home() -> Path:
    try:
        HOME.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedError(
            f"PostgreSQL needs a folder that user nobody can reach, and {HOME} cannot be made"
            f" ({error.strerror}); name one with --data-dir"
        ) from error
    return HOME


def _copy(source: Path, target: Path) -> None:
    shutil.copytree(source, target, symlinks=True)


def _open_tree(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or os.access(path, os.X_OK)
            path.chmod(0o755 if runs else 0o644)
