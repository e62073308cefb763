import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import LiteralString

import psutil
import psycopg
import pytest
import redis

from aetheris_server.embedded.account import Account
from aetheris_server.embedded.errors import (
    DataDirError,
    DataDirInUseError,
    EmbeddedError,
    EmbeddedStartError,
)
from aetheris_server.embedded.places import place_programs
from aetheris_server.embedded.postgres import _find_programs
from aetheris_server.embedded.processes import find_servers, wait_for
from aetheris_server.embedded.stores import EmbeddedStores, embedded_stores

pytestmark = pytest.mark.integration

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")

_FOREIGN_LIBPQ_VARIABLES = {
    "PGHOST": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "somebody",
    "PGDATABASE": "elsewhere",
    "PGSERVICE": "missing",
    "PGOPTIONS": "-c no_such=1",
    "PGSSLMODE": "verify-full",
    "PGCLIENTENCODING": "SQL_ASCII",
    "PGDATA": "/nowhere",
}

_OWNER = """
import sys
from pathlib import Path
from typing import LiteralString
from aetheris_server.config import LogSettings
from aetheris_server.embedded.stores import EmbeddedStores
from aetheris_server.telemetry import configure_logging
configure_logging(LogSettings())
with EmbeddedStores(Path(sys.argv[1])) as stores:
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def data_dir(open_tmp_path: Path) -> Generator[Path]:
    """A data folder; servers that a test left there are ended with it."""
    folder = open_tmp_path / "data"
    yield folder
    for process in (*_postgres_in(folder), *_redis_in(folder)):
        process.kill()


@contextmanager
def _owner(data_dir: Path, wait_ready: bool = True) -> Generator[subprocess.Popen[bytes]]:
    """Another process that owns the data folder; killed with SIGKILL at the end of the block."""
    arguments = [sys.executable, "-c", _OWNER, str(data_dir)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            if wait_ready:
                assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def _postgres_in(data_dir: Path) -> list[psutil.Process]:
    return find_servers("postgres", (data_dir / "postgres" / "data").resolve())


def _redis_in(data_dir: Path) -> list[psutil.Process]:
    return find_servers("redis-server", data_dir.resolve() / "redis")


def _query(dsn: str, statement: LiteralString) -> object:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def _use(stores: EmbeddedStores) -> None:
    """Check that both servers serve."""
    assert _query(stores.postgres_dsn, "SELECT 1") == (1,)
    with redis.Redis.from_url(stores.redis_url) as client:
        assert client.ping()


def test_stores_first_start_serves_both(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        _use(stores)


def test_stores_by_default_are_durable(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        assert _query(stores.postgres_dsn, "SHOW fsync") == ("on",)
        assert _query(stores.postgres_dsn, "SHOW synchronous_commit") == ("on",)


def test_stores_stopped_leave_no_process_and_keep_the_data(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        _query(stores.postgres_dsn, "CREATE TABLE kept AS SELECT 42 AS value")
    assert not _postgres_in(data_dir)
    assert not _redis_in(data_dir)
    with EmbeddedStores(data_dir) as stores:
        assert _query(stores.postgres_dsn, "SELECT value FROM kept") == (42,)


def test_stores_of_a_killed_owner_are_taken_over_running_again_and_again(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        _query(stores.postgres_dsn, "CREATE TABLE kept AS SELECT 42 AS value")
    with _owner(data_dir):
        first = _postgres_in(data_dir)[0]
    for _ in range(3):
        with _owner(data_dir):
            assert _postgres_in(data_dir)[0] == first
    with EmbeddedStores(data_dir) as stores:
        _use(stores)
        assert _query(stores.postgres_dsn, "SELECT value FROM kept") == (42,)
    assert not _postgres_in(data_dir)
    assert not _redis_in(data_dir)


@pytest.mark.parametrize("delay", [0.05, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0])
def test_stores_of_an_owner_killed_while_starting_start(data_dir: Path, delay: float) -> None:
    with _owner(data_dir, wait_ready=False):
        # The moment of the kill is what varies here; nothing is waited for.
        time.sleep(delay)
    with EmbeddedStores(data_dir) as stores:
        _use(stores)
    assert not _postgres_in(data_dir)


def test_stores_whose_postgres_was_killed_recover(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        _query(stores.postgres_dsn, "CREATE TABLE kept AS SELECT 42 AS value")
        _postgres_in(data_dir)[0].kill()
    with EmbeddedStores(data_dir) as stores:
        assert _query(stores.postgres_dsn, "SELECT value FROM kept") == (42,)


def test_stores_with_the_pid_file_of_another_process_start(data_dir: Path) -> None:
    with EmbeddedStores(data_dir):
        pid_file = data_dir / "postgres" / "data" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    with EmbeddedStores(data_dir) as stores:
        _use(stores)


def test_stores_owned_by_another_process_are_refused(data_dir: Path) -> None:
    with (
        _owner(data_dir) as owner,
        pytest.raises(DataDirInUseError, match=f"process {owner.pid}") as raised,
    ):
        EmbeddedStores(data_dir).start()
    assert raised.value.data_dir == data_dir.resolve()


def test_stores_refused_leave_the_owners_servers_alone(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        with pytest.raises(DataDirInUseError):
            EmbeddedStores(data_dir).start()
        _use(stores)


def test_stores_taken_over_with_other_options_restart(data_dir: Path) -> None:
    with _owner(data_dir):
        pass
    with EmbeddedStores(data_dir, {"fsync": "off"}) as stores:
        assert _query(stores.postgres_dsn, "SHOW fsync") == ("off",)


def test_stores_in_a_deep_folder_have_short_sockets(open_tmp_path: Path) -> None:
    deep = open_tmp_path / ("d" * 60) / ("e" * 60)
    with EmbeddedStores(deep) as stores:
        _use(stores)


@pytest.mark.parametrize("name", ["a, b", """a 'b' "c" """, "%41", "é"])
def test_stores_in_a_folder_with_odd_characters_serve(open_tmp_path: Path, name: str) -> None:
    with EmbeddedStores(open_tmp_path / name) as stores:
        _use(stores)


def test_stores_with_an_option_postgres_refuses_say_why_and_leave_nothing(data_dir: Path) -> None:
    with pytest.raises(EmbeddedStartError, match="no_such_option"):
        EmbeddedStores(data_dir, {"no_such_option": "1"}).start()
    assert not _postgres_in(data_dir)
    with EmbeddedStores(data_dir) as stores:
        _use(stores)


@pytest.mark.parametrize("place", ["file", "missing/under/file"])
def test_stores_whose_folder_cannot_be_used_say_which_and_why(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "missing").symlink_to(tmp_path / "file")
    with pytest.raises(DataDirError, match=r"(exists|directory).*--data-dir"):
        EmbeddedStores(tmp_path / place).start()


def test_stores_with_libpq_variables_of_another_server_serve(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _FOREIGN_LIBPQ_VARIABLES.items():
        monkeypatch.setenv(name, value)
    with EmbeddedStores(data_dir) as stores:
        _use(stores)


def test_stores_dsn_names_the_port_for_those_who_have_another_one(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with EmbeddedStores(data_dir) as stores:
        monkeypatch.setenv("PGPORT", "1")
        _use(stores)


@needs_root
def test_stores_of_an_account_without_a_name_say_so(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nameless = Account(987654, 987654)
    monkeypatch.setattr(Account, "for_postgres", lambda: nameless)
    with pytest.raises(EmbeddedError, match=r"987654.*/etc/passwd"):
        EmbeddedStores(data_dir).start()
    assert not _postgres_in(data_dir)


@needs_root
def test_stores_in_a_closed_folder_leave_it_closed_and_keep_their_data(
    open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.embedded.places.HOME", open_tmp_path / "home")
    closed = open_tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with EmbeddedStores(closed / "data") as stores:
        _query(stores.postgres_dsn, "CREATE TABLE kept AS SELECT 42 AS value")
        _use(stores)
    assert closed.stat().st_mode & 0o777 == 0o700
    with EmbeddedStores(closed / "data") as stores:
        assert _query(stores.postgres_dsn, "SELECT value FROM kept") == (42,)


@needs_root
def test_stores_of_programs_in_a_closed_folder_run_a_copy(
    open_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.embedded.places.HOME", open_tmp_path / "home")
    installed, libraries = _find_programs()
    closed = open_tmp_path / "closed"
    package = closed / installed.parents[1].name
    shutil.copytree(installed.parent, package / installed.parent.name, symlinks=True)
    shutil.copytree(libraries, closed / libraries.name)
    closed.chmod(0o700)
    account = Account.for_postgres()
    for _ in range(2):
        programs = place_programs(
            package / installed.parent.name / "bin", closed / libraries.name, account
        )
        answer = subprocess.check_output(
            [programs / "postgres", "--version"],
            timeout=30,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
        )
        assert answer.startswith(b"postgres (PostgreSQL)")
    assert closed.stat().st_mode & 0o777 == 0o700


@needs_root
def test_stores_postgres_dsn_serves_other_accounts(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        command = [_find_programs()[0] / "psql", stores.postgres_dsn, "-Atc", "SELECT 1"]
        answer = subprocess.check_output(command, timeout=30, user=1, group=1, extra_groups=[])
        assert answer == b"1\n"


async def test_embedded_stores_serve_in_a_block(data_dir: Path) -> None:
    async with embedded_stores(data_dir) as stores:
        _use(stores)
    assert not _postgres_in(data_dir)


async def test_embedded_stores_cancelled_while_starting_leave_nothing(data_dir: Path) -> None:
    async def _serve() -> None:
        async with embedded_stores(data_dir):
            await asyncio.Event().wait()

    serving = asyncio.create_task(_serve())
    assert await asyncio.to_thread(wait_for, (data_dir / "lock").exists, 10)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not _postgres_in(data_dir)


def test_stores_interrupt_of_the_process_group_spares_the_servers(data_dir: Path) -> None:
    with EmbeddedStores(data_dir) as stores:
        assert os.getpgid(_postgres_in(data_dir)[0].pid) != os.getpgrp()
        assert os.getpgid(_redis_in(data_dir)[0].pid) != os.getpgrp()
        _use(stores)
