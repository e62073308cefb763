"""The system account that Postgres runs as.

Postgres refuses to run as root. Where this process is root, Postgres runs as `nobody`, who is then
given the way to what it needs and no more: the right to pass through (not to list) the folders
above.
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from aetheris_server.telemetry import get_logger

_UNPRIVILEGED = "nobody"
_PASS = stat.S_IXOTH
_READ_AND_PASS = stat.S_IROTH | stat.S_IXOTH

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Account:
    """An account to run a server as; None in both is the one of this process."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_postgres(cls) -> "Account":
        """This process's account, or `nobody` if that is root."""
        if os.geteuid() != 0:
            return cls()
        entry = pwd.getpwnam(_UNPRIVILEGED)
        return cls(entry.pw_uid, entry.pw_gid)

    @property
    def extra_groups(self) -> list[int] | None:
        """The further groups to run with: none for another account, this process's for its own."""
        return None if self.uid is None else []

    def make_dir(self, folder: Path, mode: int) -> None:
        """Make `folder`, if it does not exist, as this account's own."""
        folder.mkdir(mode=mode, exist_ok=True)
        self.own(folder)
        folder.chmod(mode)

    def own(self, path: Path) -> None:
        """Give `path` to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def open_way_to(self, folder: Path) -> None:
        """Let this account pass through every folder above `folder`."""
        if self.uid is None:
            return
        for parent in folder.parents:
            mode = parent.stat().st_mode
            if not mode & _PASS and parent.stat().st_uid != self.uid:
                _log.warning(
                    "opened a folder for passing through", folder=str(parent), account=_UNPRIVILEGED
                )
                parent.chmod(mode | _PASS)

    def open_program(self, folder: Path) -> None:
        """Let this account read and run an installed program, also one installed under a strict
        umask.
        """
        self.open_way_to(folder)
        if self.uid is None or folder.stat().st_mode & _READ_AND_PASS == _READ_AND_PASS:
            return
        for path in (folder, *folder.rglob("*")):
            mode = path.stat().st_mode
            runs = path.is_dir() or mode & stat.S_IXUSR
            path.chmod(mode | (_READ_AND_PASS if runs else stat.S_IROTH))
