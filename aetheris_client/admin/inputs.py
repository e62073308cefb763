"""What people type: JSON arguments, durations, times. A bad one is a usage error that names the
option.
"""

import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import typer

from aetheris.api.v1.operator_service_pb2 import NamespaceLimits
from aetheris_client.options import MAX_DURATION

_UNITS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_inputs(
    inputs: Sequence[str] | None, input_files: Sequence[Path] | None, option: str = "--input"
) -> list[Any]:
    """The arguments of a call: those given in place, by `option`, then those in files; `-` is
    standard input.
    """
    return [_parse_json(text, option) for text in inputs or ()] + [
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
            values[name] = _exact_json(text)
        except (ValueError, RecursionError):
            values[name] = text
    return values


def parse_limits(pairs: Sequence[str] | None, option: str) -> dict[str, int | None]:
    """`NAME=NUMBER` pairs; None for `NAME=default`."""
    values: dict[str, int | None] = {}
    for pair in pairs or ():
        name, _, text = pair.partition("=")
        if not name or not re.fullmatch(r"\d+|default", text):
            raise typer.BadParameter(
                f"found {pair!r}, expected NAME=NUMBER or NAME=default", param_hint=option
            )
        if name not in NamespaceLimits.DESCRIPTOR.fields_by_name:
            known = ", ".join(NamespaceLimits.DESCRIPTOR.fields_by_name)
            raise typer.BadParameter(f"found {name!r}, expected one of {known}", param_hint=option)
        values[name] = None if text == "default" else min(int(text), 2**63 - 1)
    return values


def parse_duration(text: str) -> timedelta:
    """`90`, `90s`, `1h30m`, `250ms`: seconds where there is no unit."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return _bounded(text, float(text))
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise typer.BadParameter(f"found {text!r}, expected a duration such as 30s, 5m or 1h30m")
    return _bounded(text, sum(float(number) * _UNITS[unit] for number, unit in parts))


def _bounded(text: str, seconds: float) -> timedelta:
    if seconds > MAX_DURATION.total_seconds():
        raise typer.BadParameter(f"found {text!r}, which is too long a duration")
    return timedelta(seconds=seconds)


def parse_time(text: str) -> datetime:
    """ISO 8601, which is UTC where it names no zone; the same moment in UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"found {text!r}, expected ISO 8601: {error}") from None
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise typer.BadParameter(
            f"found {text!r}, expected a time from year 1 to 9999 in UTC"
        ) from None


def check_text(arguments: Mapping[str, object]) -> None:
    """Refuse text that is no text: bytes on the command line that are not in its encoding."""
    for name, value in arguments.items():
        for text in value if isinstance(value, list) else [value]:  # pyright: ignore[reportUnknownVariableType]
            if isinstance(text, str) and not _is_unicode(text):
                raise typer.BadParameter(f"found {text!r}, which is not UTF-8", param_hint=name)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parse_json(text: str | bytes, option: str) -> Any:
    try:
        return _exact_json(text)
    except RecursionError:
        raise typer.BadParameter("nested too deep", param_hint=option) from None
    except ValueError as error:
        raise typer.BadParameter(f"not JSON: {error}{_hint(text)}", param_hint=option) from None


def _exact_json(text: str | bytes) -> Any:
    """The value; unlike orjson's, its large integers do not become floats.

    Raises:
        ValueError: It is not JSON.
        RecursionError: It is nested too deep.
    """
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"JSON has no {name}")


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
