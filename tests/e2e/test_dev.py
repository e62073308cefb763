"""`aetheris-server dev`: its own Postgres and Redis, killed, closed off, or another's."""

import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from aetheris_server.embedded.processes import find_servers
from tests.support.drive import persist
from tests.support.processes import ServerProcess, running
from tests.support.raw import COMPLETED, Raw, complete_workflow, schedule_activity
from tests.support.supervised import kill_process, pids_of, wait_gone
from tests.support.wait import wait_until


async def test_dev_server_keeps_its_runs_over_kill_and_stop(open_tmp_path: Path) -> None:
    data_dir = open_tmp_path / "data"
    process = ServerProcess(open_tmp_path, ["dev", "--data-dir", str(data_dir)], {})
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        await process.restart()
        await server.decide(await server.poll_workflow(), schedule_activity())
        assert await process.terminate() == 0, process.output
        await process.start()
        await server.complete_activity(await server.poll_activity())
        await server.decide(await server.poll_workflow(), complete_workflow())
        result = await server.result(run)
        assert result is not None
        assert result.status == COMPLETED
        assert await process.terminate() == 0, process.output


async def test_dev_server_warns_of_nothing_at_a_first_start(open_tmp_path: Path) -> None:
    process = ServerProcess(open_tmp_path, ["dev", "--data-dir", str(open_tmp_path / "data")], {})
    async with running(process):
        await wait_until(
            lambda: "offering again" in process.output, 30.0, "the first round over the backlog"
        )
        assert "warning" not in process.output


@pytest.mark.parametrize("name, folder", [("postgres", "postgres/data"), ("redis-server", "redis")])
async def test_dev_server_starts_a_store_that_was_killed_again_and_loses_no_run(
    open_tmp_path: Path, name: str, folder: str
) -> None:
    data_dir = open_tmp_path / "data"
    process = ServerProcess(open_tmp_path, ["dev", "--data-dir", str(data_dir)], {})
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        for _ in range(2):
            # Postgres is several processes.
            killed = _servers(name, data_dir / folder)
            for store in killed:
                with suppress(psutil.NoSuchProcess):
                    store.kill()
            await wait_until(
                lambda killed=killed: [
                    found for found in _servers(name, data_dir / folder) if found not in killed
                ],
                30.0,
                "the store to be started again",
            )
        await server.decide(await server.poll_workflow(), complete_workflow())
        result = await server.result(run)
        assert result is not None
        assert result.status == COMPLETED
        assert await process.terminate() == 0, process.output
    assert not _servers(name, data_dir / folder)


async def test_dev_server_of_several_processes_has_one_pair_of_stores_and_ends_with_them(
    open_tmp_path: Path,
) -> None:
    data_dir = open_tmp_path / "data"
    process = ServerProcess(
        open_tmp_path,
        ["dev", "--data-dir", str(data_dir), "--processes", "2"],
        {"AETHERIS_HTTP__PORT": "0"},
    )
    async with running(process), Raw(process.address) as server:
        run = await server.start_run()
        await kill_process(process, 1)
        (store,) = _servers("redis-server", data_dir / "redis")
        store.kill()
        await server.decide(await persist(server.poll_workflow), schedule_activity())
        await server.complete_activity(await persist(server.poll_activity))
        await server.decide(await persist(server.poll_workflow), complete_workflow())
        result = await server.result(run)
        assert result is not None
        assert result.status == COMPLETED
        await wait_until(
            lambda: len(_servers("redis-server", data_dir / "redis")) == 1, 30.0, "another Redis"
        )
        pids = pids_of(process)
        assert await process.terminate() == 0, process.output
        await wait_gone(pids, 0.1)
    assert not _servers("redis-server", data_dir / "redis")
    assert not _servers("postgres", data_dir / "postgres" / "data")


async def test_dev_server_whose_store_cannot_be_started_again_ends_and_says_so(
    open_tmp_path: Path,
) -> None:
    data_dir = open_tmp_path / "data"
    process = ServerProcess(open_tmp_path, ["dev", "--data-dir", str(data_dir)], {})
    async with running(process):
        (data_dir / "postgres" / "data" / "PG_VERSION").write_text("9")
        _servers("postgres", data_dir / "postgres" / "data")[0].send_signal(signal.SIGKILL)
        assert await process.wait_exit() == 1
        assert "is of version 9" in process.output


async def test_dev_server_whose_data_folder_is_deleted_ends_and_says_so_in_a_line(
    open_tmp_path: Path,
) -> None:
    data_dir = open_tmp_path / "data"
    process = ServerProcess(open_tmp_path, ["dev", "--data-dir", str(data_dir)], {})
    async with running(process):
        # As a deletion, but whole: Postgres makes files while a tree is removed.
        (store, *_) = _servers("postgres", data_dir / "postgres" / "data")
        data_dir.rename(open_tmp_path / "elsewhere")
        store.send_signal(signal.SIGKILL)
        assert await process.wait_exit() == 1
        assert f"the data folder {data_dir.resolve()} was deleted" in process.output
        assert "Traceback" not in process.output


def _servers(name: str, folder: Path) -> list[psutil.Process]:
    return find_servers(name, folder.resolve())
