"""What can go wrong with embedded stores.

EmbeddedError
├── EmbeddedMissingError   the wheel that carries the server is not installed
├── DataDirInUseError      another process owns the data folder
├── DataDirError           the data folder cannot be made or written
├── DataDirGoneError       the data folder was deleted while it was in use
└── EmbeddedStartError     a server did not start, or not in time
"""

from pathlib import Path


class EmbeddedError(Exception):
    """The embedded stores cannot be used."""


class EmbeddedMissingError(EmbeddedError):
    """A server's binary is missing: the `embedded` extra is not installed."""

    def __init__(self, server: str) -> None:
        super().__init__(
            f"no {server} binary found; install it with: pip install 'aetheris-workflow[embedded]'"
        )
        self.server = server


class DataDirInUseError(EmbeddedError):
    """The data folder belongs to another process that is running."""

    def __init__(self, data_dir: Path, owner: str) -> None:
        super().__init__(
            f"the data folder {data_dir} is in use by {owner or 'another process'};"
            " stop that, or name another folder"
        )
        self.data_dir = data_dir
        self.owner = owner


class DataDirError(EmbeddedError):
    """The system refuses the data folder, or something in it."""

    def __init__(self, data_dir: Path, error: OSError) -> None:
        problem = error.strerror or str(error)
        where = f" ({error.filename})" if error.filename else ""
        super().__init__(
            f"the data folder {data_dir} cannot be used: {problem}{where};"
            " name a folder that you can write with --data-dir"
        )
        self.data_dir = data_dir


class DataDirGoneError(EmbeddedError):
    """The data folder was deleted, or moved, under the servers that ran in it."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(
            f"the data folder {data_dir} was deleted while it was in use, and its data with it;"
            " a new start makes an empty one"
        )
        self.data_dir = data_dir


class EmbeddedStartError(EmbeddedError):
    """A server exited, or was not ready in time; the message ends with the end of its log."""

    def __init__(self, server: str, problem: str, log: Path | None = None) -> None:
        lines = log.read_text(errors="replace").splitlines()[-20:] if log and log.exists() else []
        super().__init__("\n".join([f"{server}: {problem}", *lines]))
        self.server = server
