import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from aetheris_server.config import ConfigError, LogSettings
from aetheris_server.telemetry import configure_logging, get_logger


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()


def _events(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_configure_logging_json_writes_one_object_per_event(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "server.log"
    configure_logging(LogSettings(format="json", file=file))
    get_logger("a.b", shard=3).info("acquired", term=7)
    (event,) = _events(file)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "acquired", "level": "info", "logger": "a.b", "shard": 3, "term": 7,
    }  # fmt: skip


def test_configure_logging_sends_standard_library_records_the_same_way(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    configure_logging(LogSettings(format="json", file=file))
    logging.getLogger("lib").warning("slow %s", "query", extra={"seconds": 2})
    (event,) = _events(file)
    assert (event["event"], event["logger"], event["seconds"]) == ("slow query", "lib", 2)


def test_configure_logging_of_one_of_several_processes_names_it_in_each_event(
    tmp_path: Path,
) -> None:
    file = tmp_path / "server.log"
    configure_logging(LogSettings(format="json", file=file), "2")
    get_logger("a.b").info("acquired")
    logging.getLogger("lib").warning("slow")
    assert [event["process"] for event in _events(file)] == ["2", "2"]


def test_configure_logging_level_drops_what_is_below(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    configure_logging(LogSettings(level="warning", format="json", file=file))
    get_logger("a").info("quiet")
    logging.getLogger("lib").info("quiet too")
    assert _events(file) == []


def test_configure_logging_traceback_leaves_out_local_variables(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    configure_logging(LogSettings(format="json", file=file))
    password = "hunter2"
    try:
        raise RuntimeError(f"boom after {len(password)}")
    except RuntimeError:
        get_logger("a").exception("failed")
    assert "boom" in file.read_text()
    assert "hunter2" not in file.read_text()


def test_configure_logging_console_writes_text_to_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging(LogSettings(format="console"))
    get_logger("a").info("ready", port=7233)
    assert "ready" in capsys.readouterr().err


def test_configure_logging_twice_replaces_the_first(tmp_path: Path) -> None:
    for name in ("a.log", "b.log"):
        configure_logging(LogSettings(format="json", file=tmp_path / name))
    get_logger("a").info("once")
    assert _events(tmp_path / "a.log") == []
    assert len(_events(tmp_path / "b.log")) == 1


def test_configure_logging_file_that_cannot_be_opened_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"log\.file: .*cannot be opened"):
        configure_logging(LogSettings(file=tmp_path))


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\x9bb", "\u202egnp", "a\nb"])
def test_console_log_shows_what_is_not_printable_as_its_escape(tmp_path: Path, name: str) -> None:
    file = tmp_path / "server.log"
    configure_logging(LogSettings(format="console", file=file))
    get_logger("a.b").info("run closed", workflow_id=name)
    logging.getLogger("lib").warning("slow %s", name)
    for line in file.read_text().split("\n"):
        assert line.isprintable()


def test_console_log_value_with_a_newline_fakes_no_event(tmp_path: Path) -> None:
    file = tmp_path / "server.log"
    configure_logging(LogSettings(format="console", file=file))
    get_logger("a.b").info("run closed", workflow_id="w\n2026-11-28 [error] all is lost")
    (line,) = file.read_text().splitlines()
    assert "w\\n2026" in line


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "\u202egnp"])
def test_console_log_shows_what_is_not_printable_in_a_traceback_as_its_escape(
    tmp_path: Path, name: str
) -> None:
    file = tmp_path / "server.log"
    configure_logging(LogSettings(format="console", file=file))
    for logger in (get_logger("a.b"), logging.getLogger("lib")):
        try:
            raise ValueError(f"no such thing: {name}")
        except ValueError:
            logger.exception("failed")
    lines = file.read_text().split("\n")
    assert all(line.isprintable() for line in lines)
    assert sum("ValueError: no such thing" in line for line in lines) == 2
