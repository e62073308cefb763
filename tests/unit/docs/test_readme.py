import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from aetheris_client.admin.cli import app as admin_app
from aetheris_server.cli import app as server_app

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_readme_code_is_that_of_an_example(code: str) -> None:
    paths = (ROOT / "examples").glob("*/*.py")
    assert any(_bare(code) in _bare(path.read_text()) for path in paths)


def _bare(code: str) -> str:
    """Without the indentation and the blank lines that a method has in its class alone."""
    return "\n".join(line.strip() for line in code.splitlines() if line.strip())


@pytest.mark.parametrize("target", re.findall(r"^make ([\w-]+)", README, re.MULTILINE))
def test_readme_make_targets_exist(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_readme_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


@pytest.mark.parametrize("module", re.findall(r"python -m ([\w.]+)", README))
def test_readme_modules_exist(module: str) -> None:
    assert (ROOT / (module.replace(".", "/") + ".py")).exists()


@pytest.mark.parametrize(
    "line", re.findall(r"^aetheris-(?:admin|server) .+$", README, re.MULTILINE)
)
def test_readme_commands_and_their_options_exist(line: str) -> None:
    program, *words = shlex.split(line, comments=True)
    command: Any = typer.main.get_command(admin_app if program == "aetheris-admin" else server_app)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{line}: no such command"
    known = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize(
    "commands", re.findall(r"aetheris-admin ([a-z-]+) ((?:[a-z-]+ \| )*[a-z-]+)`", README)
)
def test_readme_groups_have_their_commands(commands: tuple[str, str]) -> None:
    group, names = commands
    command: Any = typer.main.get_command(admin_app)
    assert set(names.split(" | ")) <= set(command.commands[group].commands)
