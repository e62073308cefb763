"""What people type: JSON arguments, durations, times. A bad one is a usage error that names the
option.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import typer

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_inputs(inputs: Sequence[str] | None, input_files: Sequence[Path] | None) -> list[Any]:
    """The arguments of a call: those given in place, then those in files; `-` is standard input."""
    return [_parse_json(text, "--input") for text in inputs or ()] + [
        _parse_json(_read(path), f"--input-file {path}") for path in input_files or ()
    ]


def parse_object(pairs: Sequence[str] | None, option: str) -> dict[str, Any]:
    """`NAME=JSON` pairs; a value that is not JSON is a string."""
    values: dict[str, Any] = {}
    for pair in pairs or ():
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"found {pair!r}, expected NAME=VALUE", param_hint=option)
        try:
            values[name] = orjson.loads(text)
        except orjson.JSONDecodeError:
            values[name] = text
    return values


def parse_duration(text: str) -> timedelta:
    """`90`, `90s`, `1h30m`, `250ms`: seconds where there is no unit."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return timedelta(seconds=float(text))
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"found {text!r}, expected a duration such as 30s, 5m or 1h30m")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError:
        raise typer.BadParameter(f"found {text!r}, which is too long a duration") from None


def parse_time(text: str) -> datetime:
    """ISO 8601, in UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"found {text!r}, expected ISO 8601: {error}") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _parse_json(text: str | bytes, option: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON: {error}{_hint(text)}", param_hint=option) from None


def _hint(text: str | bytes) -> str:
    """What was probably meant, where it is a word or some."""
    if isinstance(text, bytes) or not re.match(r"\w[^\"]*$", text):
        return ""
    return f"; a string needs its quotes: {shlex.quote(orjson.dumps(text).decode())}"


def _read(path: Path) -> bytes:
    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(
            f"cannot read {path}: {error.strerror}", param_hint="--input-file"
        ) from None
