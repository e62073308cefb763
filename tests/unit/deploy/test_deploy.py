"""The container files name only what is there: settings, commands, ports, files, versions."""

import asyncio
import json
import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.specifiers import SpecifierSet

from aetheris_server.cli import _END_TIMEOUT, app
from aetheris_server.config import HttpSettings, Settings, internal_port, load_settings
from aetheris_server.embedded.postgres import POSTGRES_MAJOR
from aetheris_server.web import build_app, health_routes, serve_http

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# A backslash goes on with the next line.
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: each for name, each in SERVICES.items() if each["image"].startswith("aetheris")}
SERVERS = {name: each for name, each in OURS.items() if "command" not in each}


def _of_dockerfile(instruction: str) -> list[str]:
    return re.findall(rf"^ *{instruction} +(.*)$", DOCKERFILE, re.MULTILINE)


def _image_environment() -> dict[str, str]:
    return dict(word.split("=", 1) for line in _of_dockerfile("ENV") for word in line.split())


def _health_command() -> list[str]:
    [line] = _of_dockerfile("HEALTHCHECK")
    return json.loads(line.partition(" CMD ")[2])


def _seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def test_files_have_the_services_that_this_reads() -> None:
    assert set(OURS) == {"migrate", "server", "server-2"}
    assert set(SERVERS) == {"server", "server-2"}


@pytest.mark.parametrize("service", OURS)
def test_environment_is_one_that_the_server_takes(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("AETHERIS_")]:
        monkeypatch.delenv(name)
    environment = {**_image_environment(), **OURS[service]["environment"]}
    for name, value in environment.items():
        if name.startswith("AETHERIS_"):
            monkeypatch.setenv(name, value)

    settings = load_settings()

    settings.require_stores()
    # Others in the network reach it, at a port that the files publish and probe.
    hosts = {settings.grpc.host, settings.internal.host, settings.http.host}
    assert hosts == {"0.0.0.0"}
    assert _of_dockerfile("EXPOSE") == [f"{settings.grpc.port} {settings.http.port}"]
    assert f"'127.0.0.1', {settings.http.port}" in _health_command()[-1]
    if service in SERVERS:
        port = internal_port(settings.internal, settings.grpc)
        assert settings.internal.advertised_address == f"{service}:{port}"
        published = [port.rsplit(":", 1)[1] for port in OURS[service]["ports"]]
        assert published == [str(settings.grpc.port), str(settings.http.port)]
        assert all(port.startswith("127.0.0.1:") for port in OURS[service]["ports"])


def test_commands_are_those_of_the_server() -> None:
    known: Any = typer.main.get_command(app)
    [start] = json.loads(_of_dockerfile("CMD")[-1])
    [program] = json.loads(_of_dockerfile("ENTRYPOINT")[-1])

    assert start == "start"
    assert {start, *OURS["migrate"]["command"]} <= set(known.commands)
    assert program in PROJECT["scripts"]


def test_versions_are_those_of_the_project() -> None:
    tag = f"aetheris-server:{PROJECT['version']}"
    pythons = set(re.findall(r"^FROM python:([\d.]+)-slim", DOCKERFILE, re.MULTILINE))

    assert {each["image"] for each in OURS.values()} == {tag}
    assert tag in (DEPLOY / "Dockerfile").read_text()
    assert len(pythons) == 1
    assert pythons.pop() in SpecifierSet(PROJECT["requires-python"])
    assert SERVICES["postgres"]["image"] == f"postgres:{POSTGRES_MAJOR}"
    assert "'.[server]'" in DOCKERFILE
    assert "server" in PROJECT["optional-dependencies"]


def test_image_is_made_of_files_that_exist_and_are_not_ignored() -> None:
    sources = [
        word
        for line in _of_dockerfile("COPY")
        if not line.startswith("--from")
        for word in line.split()[:-1]
    ]
    ignored, *kept, caches = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()[1:]
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]

    assert (ignored, caches) == ("*", "**/__pycache__")
    assert sorted(kept) == sorted(f"!{source}" for source in sources)
    assert all((ROOT / source).exists() for source in sources)
    for package in packages["targets"]["wheel"]["packages"]:
        assert any(package == source or package.startswith(f"{source}/") for source in sources)


def test_server_starts_when_the_tables_are_there_and_redis_answers() -> None:
    for server in SERVERS.values():
        assert server["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
        assert server["depends_on"]["redis"]["condition"] == "service_healthy"
    assert OURS["migrate"]["depends_on"]["postgres"]["condition"] == "service_healthy"
    assert OURS["migrate"]["restart"] == "no"


def test_redis_evicts_nothing() -> None:
    command = SERVICES["redis"]["command"]

    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_server_has_the_time_that_it_may_take_to_end() -> None:
    longest = Settings().grpc.drain_timeout + _END_TIMEOUT

    assert all(_seconds(server["stop_grace_period"]) > longest for server in SERVERS.values())


def test_image_runs_as_nobody_in_particular() -> None:
    [user] = _of_dockerfile("USER")

    assert user == "10001:10001"
    assert DOCKERFILE.index("USER") > DOCKERFILE.rindex("RUN")


@pytest.mark.parametrize("waits_for, code", [(None, 0), ("the shards", 1)])
async def test_health_check_asks_the_server_whether_it_is_ready(
    waits_for: str | None, code: int
) -> None:
    _, option, script = _health_command()
    probed = build_app(health_routes(lambda: waits_for))
    async with serve_http(HttpSettings(port=0), probed) as endpoint:
        assert endpoint is not None
        script = script.replace(str(Settings().http.port), str(endpoint.port))
        check = await asyncio.create_subprocess_exec(sys.executable, option, script)
        assert await check.wait() == code
