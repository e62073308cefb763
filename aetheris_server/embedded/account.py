"""The system account that Postgres runs as.

Postgres refuses to run as root. Where this process is root, Postgres runs as `nobody`. No folder
that is not ours is opened to that account: what it cannot reach is put where it can (`places`).
"""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from aetheris_server.embedded.errors import EmbeddedError

_UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class Account:
    """An account to run a server as; None in both is the one of this process."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def for_postgres(cls) -> "Account":
        """This process's account, or `nobody` if that is root.

        Raises:
            EmbeddedError: The system has no `nobody`.
        """
        if os.geteuid() != 0:
            return cls()
        try:
            entry = pwd.getpwnam(_UNPRIVILEGED)
        except KeyError:
            raise EmbeddedError(
                f"PostgreSQL refuses to run as root, and this system has no user {_UNPRIVILEGED} to"
                " run it as; run as another user, or use a Postgres of your own:"
                " aetheris-server start"
            ) from None
        return cls(entry.pw_uid, entry.pw_gid)

    @property
    def name(self) -> str:
        """For messages."""
        return "the account of this process" if self.uid is None else _UNPRIVILEGED

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

    def can_reach(self, path: Path) -> bool:
        """Whether this account may pass through every folder above `path`."""
        return self.uid is None or all(self._may(parent, stat.S_IXOTH) for parent in path.parents)

    def can_run(self, folder: Path) -> bool:
        """Whether this account may read and run an installed program; a strict umask forbids it."""
        if self.uid is None:
            return True
        return self.can_reach(folder) and self._may(folder, stat.S_IROTH | stat.S_IXOTH)

    def check_name(self) -> None:
        """Check that the account has a name: without one `initdb` does not run.

        Raises:
            EmbeddedError: It has none, as in a container that is run under any number.
        """
        uid = os.geteuid() if self.uid is None else self.uid
        try:
            pwd.getpwuid(uid)
        except KeyError:
            raise EmbeddedError(
                f"PostgreSQL cannot set up its data as user {uid}, who has no name on this system;"
                f" run as a user who has one, add a line for {uid} to /etc/passwd,"
                " or use a Postgres of your own: aetheris-server start"
            ) from None

    def _may(self, path: Path, rights: int) -> bool:
        """Whether the rights, given as those of others, are this account's."""
        status = path.stat()
        if status.st_uid == self.uid:
            rights <<= 6
        elif status.st_gid == self.gid:
            rights <<= 3
        return status.st_mode & rights == rights
