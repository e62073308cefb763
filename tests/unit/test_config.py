import traceback
from pathlib import Path

import pytest
from pydantic import ValidationError

from aetheris_server.config import ConfigError, GrpcSettings, Settings, load_settings
from aetheris_server.frontend.waits import SLACK_SECONDS

DSN = "postgresql://aetheris:hunter2@db/aetheris"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in os.environ:
        if name.startswith("AETHERIS_"):
            monkeypatch.delenv(name)


def _written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    "name,text",
    [
        ("a.yaml", "grpc:\n  port: 9\n"),
        ("a.yml", "grpc: {port: 9}"),
        ("a.toml", "[grpc]\nport = 9\n"),
        ("a.json", '{"grpc": {"port": 9}}'),
    ],
)
def test_load_settings_from_a_file_reads_it_by_suffix(tmp_path: Path, name: str, text: str) -> None:
    assert load_settings(_written(tmp_path, name, text)).grpc.port == 9


def test_load_settings_without_anything_gives_the_defaults() -> None:
    assert load_settings().model_dump() == Settings().model_dump()


def test_load_settings_flag_wins_over_environment_over_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = _written(tmp_path, "a.yaml", "grpc: {host: from-file, port: 1, drain_timeout: 3}")
    monkeypatch.setenv("AETHERIS_GRPC__PORT", "2")
    monkeypatch.setenv("AETHERIS_GRPC__HOST", "from-environment")
    grpc = load_settings(file, {"grpc.host": "from-flag", "grpc.port": None}).grpc
    assert (grpc.host, grpc.port, grpc.drain_timeout) == ("from-flag", 2, 3.0)


def test_load_settings_takes_the_file_named_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AETHERIS_CONFIG", str(_written(tmp_path, "a.toml", 'data_dir = "x"')))
    assert load_settings().data_dir == Path("x")


@pytest.mark.parametrize(
    "text,seconds", [("250ms", 0.25), ("10s", 10), ("5m", 300), ("1h", 3600), ("2d", 172800)]
)
def test_load_settings_duration_with_a_unit_is_in_seconds(
    monkeypatch: pytest.MonkeyPatch, text: str, seconds: float
) -> None:
    monkeypatch.setenv("AETHERIS_MATCHING__POLL_TIMEOUT", text)
    assert load_settings().matching.poll_timeout == seconds


@pytest.mark.parametrize(
    "variable,value,key",
    [
        ("AETHERIS_REDIS__URL", "http://user:secret@x", "redis.url"),
        ("AETHERIS_INTERNAL__ADVERTISED_ADDRESS", "somewhere", "internal.advertised_address"),
        ("AETHERIS_HISTORY__LEASE_TIMEOUT", "1s", "history"),
        ("AETHERIS_MATCHING__POLL_TIMEOUT", "-1s", "matching.poll_timeout"),
    ],
)
def test_load_settings_value_that_cannot_work_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, key: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert caught.value.key == key
    assert "secret" not in str(caught.value)


def test_load_settings_size_with_a_unit_is_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHERIS_GRPC__MAX_MESSAGE_BYTES", "4MiB")
    assert load_settings().grpc.max_message_bytes == 4 * 1024 * 1024


@pytest.mark.parametrize("text", ["-1", "off"])
def test_load_settings_http_port_off_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("AETHERIS_HTTP__PORT", text)
    assert load_settings().http.port is None


def test_load_settings_http_port_zero_stays_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHERIS_HTTP__PORT", "0")
    assert load_settings().http.port == 0


@pytest.mark.parametrize(
    "text,key,message",
    [
        ("grpc: {prt: 1}", "grpc.prt", "unknown key (file FILE); did you mean grpc.port?"),
        ("grcp: {}", "grcp", "unknown key (file FILE)"),
        ("grpc: 5", "grpc", "expected a section of keys, found 5 (file FILE)"),
        ("grpc: {port: 70000}", "grpc.port", "expected less than or equal to 65535, found 70000"),
        ("log: {level: loud}", "log.level", "'warning' or 'error', found 'loud' (file FILE)"),
        ("history: {shard_count: 0}", "history.shard_count", "found 0"),
        ("history: {lease_timeout: 5x}", "history.lease_timeout", "found '5x'"),
        ("processes: 0", "processes", "expected greater than or equal to 1, found 0"),
        ("processes: 65", "processes", "expected less than or equal to 64, found 65"),
        ("processes: auto", "processes", "found 'auto'"),
    ],
)
def test_load_settings_mistake_in_the_file_names_key_and_value(
    tmp_path: Path, text: str, key: str, message: str
) -> None:
    file = _written(tmp_path, "a.yaml", text)
    with pytest.raises(ConfigError) as raised:
        load_settings(file)
    assert raised.value.key == key
    assert message.replace("FILE", str(file)) in str(raised.value)


@pytest.mark.parametrize(
    "name,text,message",
    [
        ("a.yaml", f"postgres: {DSN}", "postgres: expected a section of keys, found a string"),
        ("a.yaml", DSN, "expected a mapping of sections, found a string"),
        ("a.yaml", f"- {DSN}", "expected a mapping of sections, found a list"),
        ("a.yaml", f"postgres: {{dsn: '{DSN}'", "not well formed (at line 1, column"),
        ("a.yaml", f"postgres:\n  dsn: '{DSN}\n", "not well formed (at line 3, column 1)"),
        ("a.yaml", f"dsn: \t@{DSN}", "not well formed (at line 1, column"),
        ("a.toml", f"postgres = {DSN}", "not well formed: Invalid value (at line 1, column 12)"),
        ("a.json", f'{{"postgres": {DSN}', "not well formed: Expecting value: line 1 column 14"),
        ("a.yaml", f"postgres: {{dsn: [{DSN}]}}", "postgres.dsn: "),
    ],
)
def test_load_settings_mistake_does_not_show_a_password(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load_settings(_written(tmp_path, name, text))

    assert message in str(raised.value)
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def test_load_settings_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHERIS_GRPC__PORT", "many")
    with pytest.raises(ConfigError, match=r"grpc\.port: .*found 'many' \(AETHERIS_GRPC__PORT\)"):
        load_settings()


def test_load_settings_bad_flag_is_named() -> None:
    with pytest.raises(ConfigError, match=r"grpc\.port: .*found -5 \(flag for grpc\.port\)"):
        load_settings(flags={"grpc.port": -5})


def test_load_settings_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHERIS_GRPC_PORT", "1")
    with pytest.raises(ConfigError, match="did you mean AETHERIS_GRPC__PORT"):
        load_settings()


@pytest.mark.parametrize(
    "name", ["AETHERIS_ADDRESS", "AETHERIS_NAMESPACE", "AETHERIS_TEST_POSTGRES"]
)
def test_load_settings_variables_of_others_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "x")
    load_settings()


@pytest.mark.parametrize("service", ["AETHERIS", "AETHERIS_GRPC"])
def test_load_settings_variables_of_kubernetes_for_a_service_of_that_name_are_left_alone(
    monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    for name, value in {
        "SERVICE_HOST": "10.96.3.1",
        "SERVICE_PORT": "7233",
        "SERVICE_PORT_PUBLIC": "7233",
        "PORT": "tcp://10.96.3.1:7233",
        "PORT_7233_TCP": "tcp://10.96.3.1:7233",
        "PORT_7233_TCP_PROTO": "tcp",
        "PORT_7233_TCP_PORT": "7233",
        "PORT_7233_TCP_ADDR": "10.96.3.1",
    }.items():
        monkeypatch.setenv(f"{service}_{name}", value)
    assert load_settings().model_dump() == Settings().model_dump()
    monkeypatch.setenv("AETHERIS_GRPC_HOST", "x")
    with pytest.raises(ConfigError, match="AETHERIS_GRPC_HOST: unknown"):
        load_settings()


@pytest.mark.parametrize("section", ["grpc", "internal", "http"])
def test_load_settings_address_of_ipv6_may_be_in_brackets(section: str) -> None:
    assert getattr(load_settings(flags={f"{section}.host": "[::1]"}), section).host == "::1"


@pytest.mark.parametrize("section", ["grpc", "internal", "http"])
@pytest.mark.parametrize("host", ["", "0.0.0.0:7233", "http://localhost", "a b", "[::1", "[a]"])
def test_load_settings_host_that_is_none_is_named(section: str, host: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{section}\.host: expected"):
        load_settings(flags={f"{section}.host": host})


@pytest.mark.parametrize("address", ["a:7234", "10.0.0.1:7234", "[fd00::1]:7234"])
def test_load_settings_address_that_others_reach_is_taken(address: str) -> None:
    flags = {"internal.advertised_address": address}
    assert load_settings(flags=flags).internal.advertised_address == address


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0:7234", "[::]:7234", "fd00::1:7234", "http://a:7234", "a b:7234", "a:", "a:0"),
        "[]:7234",
    ],
)
def test_load_settings_address_that_nobody_reaches_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match=r"^internal\.advertised_address: expected host:port"):
        load_settings(flags={"internal.advertised_address": address})


@pytest.mark.parametrize(
    "name,text",
    [("a.yaml", "[a"), ("a.json", "{"), ("a.toml", "="), ("a.ini", ""), ("a.yaml", "[1]")],
)
def test_load_settings_malformed_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    file = _written(tmp_path, name, text)
    with pytest.raises(ConfigError) as raised:
        load_settings(file)
    assert raised.value.key == str(file)


def test_load_settings_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: the settings file cannot be read"):
        load_settings(tmp_path / "missing.yaml")


def test_load_settings_empty_section_means_its_defaults(tmp_path: Path) -> None:
    assert load_settings(_written(tmp_path, "a.yaml", "grpc:\n")).grpc == GrpcSettings()


def test_poll_is_answered_before_a_proxy_gives_it_up() -> None:
    # grpc_read_timeout of nginx, and the idle timeout of AWS' load balancers, by default.
    assert Settings().matching.poll_timeout + SLACK_SECONDS < 60


def test_settings_from_code_read_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHERIS_GRPC__PORT", "1")
    assert Settings().grpc.port == 7233


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().data_dir = Path("x")


def test_settings_require_stores_without_them_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"redis\.url: .*--redis-url.*AETHERIS_REDIS__URL"):
        Settings().with_stores("postgresql://", "").require_stores()


def test_settings_repr_hides_the_dsn() -> None:
    assert "secret" not in repr(Settings().with_stores("postgresql://u:secret@h/", "redis://"))
