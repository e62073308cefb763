"""The data folder: one owner at a time, and a place for sockets whose paths are short enough."""

import fcntl
import hashlib
import os
import stat
import tempfile
from pathlib import Path

from aetheris_server.embedded.errors import DataDirInUseError, EmbeddedError

# sun_path holds 104 bytes on macOS and 108 on Linux, with its closing NUL.
_SOCKET_PATH_MAX_BYTES = 103
_LONGEST_SOCKET_NAME = "/.s.PGSQL.5432.lock"


class DataDirLock:
    """Ownership of a data folder by this process.

    The lock is the kernel's: it ends with the process, however that ends, and no server started by
    the process inherits it.
    """

    def __init__(self, data_dir: Path) -> None:
        """Take the lock.

        Raises:
            DataDirInUseError: Another process has it.
        """
        self._file = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._file, 64).decode(errors="replace").strip()
            os.close(self._file)
            raise DataDirInUseError(data_dir, owner) from error
        os.ftruncate(self._file, 0)
        os.write(self._file, f"process {os.getpid()}\n".encode())

    def release(self) -> None:
        """Give the folder up. The file stays: removed, two processes could lock two files."""
        os.close(self._file)


def socket_dir(data_dir: Path) -> Path:
    """The folder for the sockets of a data folder (a resolved path); not made here.

    It is inside the data folder, or, where that path is too long for a socket or has a comma (which
    libpq takes for the end of a host), one in the system's temporary folder that always is the same
    for the same data folder.
    """
    inside = data_dir / "run"
    is_short = len(os.fsencode(inside)) + len(_LONGEST_SOCKET_NAME) <= _SOCKET_PATH_MAX_BYTES
    if is_short and "," not in str(inside):
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"aetheris-{digest}"


def check_socket_dir(folder: Path, owner_uid: int) -> None:
    """Refuse a socket folder that somebody else put there: the temporary folder is open to
    everyone.

    Raises:
        EmbeddedError: It is a link, or another account's.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (owner_uid, os.geteuid()):
        raise EmbeddedError(
            f"{folder} was expected to be this account's own folder and is not; remove it"
        )
