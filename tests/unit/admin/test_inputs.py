"""What people type."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import typer

from aetheris_client.admin.inputs import parse_duration, parse_inputs, parse_object, parse_time


@pytest.mark.parametrize(
    "text,seconds",
    [("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("30s", 30), ("1h30m", 5400), ("1d", 86400)],
)
def test_duration_with_or_without_units_is_parsed(text: str, seconds: float):
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "5x", "-1s", "1h 30m", "9" * 30 + "d"])
def test_duration_that_is_none_is_a_usage_error(text: str):
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


def test_time_without_zone_is_utc():
    assert parse_time("2026-01-02T03:04:05") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_time("2026-01-02T03:04:05+01:00") == datetime(2026, 1, 2, 2, 4, 5, tzinfo=UTC)


def test_time_that_is_none_is_a_usage_error():
    with pytest.raises(typer.BadParameter, match="ISO 8601"):
        parse_time("yesterday")


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_time_that_utc_does_not_have_is_a_usage_error(text: str):
    with pytest.raises(typer.BadParameter, match="a time from year 1 to 9999 in UTC"):
        parse_time(text)


def test_inputs_are_those_in_place_then_those_in_files(tmp_path: Path):
    path = tmp_path / "input.json"
    path.write_text('{"a": 1}')
    assert parse_inputs(['"x"', "2"], [path]) == ["x", 2, {"a": 1}]


def test_input_that_is_not_json_names_its_option(tmp_path: Path):
    with pytest.raises(typer.BadParameter, match="not JSON") as caught:
        parse_inputs(["{"], None)
    assert caught.value.param_hint == "--input"
    path = tmp_path / "input.json"
    path.write_text("x")
    with pytest.raises(typer.BadParameter) as caught:
        parse_inputs(None, [path])
    assert caught.value.param_hint == f"--input-file {path}"


@pytest.mark.parametrize("text,quoted", [("Ada", "'\"Ada\"'"), ("it's", "it'")])
def test_input_that_is_a_bare_word_hints_at_its_quotes(text: str, quoted: str):
    with pytest.raises(typer.BadParameter, match="a string needs its quotes") as caught:
        parse_inputs([text], None)
    assert quoted in caught.value.message


def test_input_file_that_is_missing_is_a_usage_error(tmp_path: Path):
    with pytest.raises(typer.BadParameter, match="No such file"):
        parse_inputs(None, [tmp_path / "absent"])


def test_pairs_are_json_or_else_strings():
    assert parse_object(["a=1", "b=x=y", 'c={"d":[]}'], "--memo") == {
        "a": 1,
        "b": "x=y",
        "c": {"d": []},
    }


@pytest.mark.parametrize("pair", ["a", "=1"])
def test_pair_without_name_or_value_is_a_usage_error(pair: str):
    with pytest.raises(typer.BadParameter) as caught:
        parse_object([pair], "--memo")
    assert caught.value.param_hint == "--memo"


def test_large_integer_is_not_rounded():
    assert parse_inputs(["123456789012345678901234567890"], None) == [
        123456789012345678901234567890
    ]
    assert parse_object(["a=18446744073709551617"], "--memo") == {"a": 18446744073709551617}


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "[" * 100_000])
def test_input_that_only_looks_like_json_is_a_usage_error(text: str):
    with pytest.raises(typer.BadParameter):
        parse_inputs([text], None)


@pytest.mark.parametrize("text", ["999999999d", "9" * 400, "1e9s"])
def test_duration_that_no_message_can_carry_is_a_usage_error(text: str):
    with pytest.raises(typer.BadParameter, match="found"):
        parse_duration(text)
