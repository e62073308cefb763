"""Settings from flags, environment and file; what is wrong with them, and where it came from."""

import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn, cast

import yaml
from pydantic import (
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from aetheris_server.config.sections import (
    Section,
    Settings,
)
from aetheris_server.config.values import (
    ENV_DELIMITER,
    ENV_PREFIX,
    ConfigError,
    variable_of,
)

CONFIG_FILE_VARIABLE = "AETHERIS_CONFIG"
# Read by the clients, which often share an environment with a server.
_CLIENT_VARIABLES = frozenset({"AETHERIS_ADDRESS", "AETHERIS_NAMESPACE"})
_TEST_PREFIX = "AETHERIS_TEST_"
# May carry a password.
_SECRETS = frozenset({"postgres.dsn", "redis.url"})
# What Kubernetes puts into the environment of a pod for each service, behind the service's name.
_SERVICE_VARIABLE = re.compile(r"SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_.+)?")


class _LoadedSettings(Settings, BaseSettings):
    """Settings whose constructor also reads the environment and the file's data.

    Only `load_settings` builds it.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=ENV_DELIMITER,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        del dotenv_settings, file_secret_settings
        # The constructor's arguments are {"flags": ..., "file": ...}: one per source.
        by_source = cast("dict[str, dict[str, Any]]", init_settings())
        return (
            InitSettingsSource(settings_cls, by_source["flags"]),
            env_settings,
            InitSettingsSource(settings_cls, by_source["file"]),
        )


def load_settings(
    config_file: Path | None = None, flags: Mapping[str, object] | None = None
) -> Settings:
    """Read the settings of this process.

    Args:
        config_file: YAML, TOML or JSON by its suffix; None takes that in AETHERIS_CONFIG, if any.
        flags: Values by dotted key (`{"grpc.port": 7233}`); those that are None were not given.

    Raises:
        ConfigError: A key is unknown, a value is bad, or the file cannot be read.
    """
    _check_environment(os.environ)
    if config_file is None and os.environ.get(CONFIG_FILE_VARIABLE):
        config_file = Path(os.environ[CONFIG_FILE_VARIABLE])
    from_file = {} if config_file is None else _read_file(config_file)
    from_flags = _nest({key: value for key, value in (flags or {}).items() if value is not None})
    by_source: dict[str, Any] = {"flags": from_flags, "file": from_file}
    try:
        return _LoadedSettings(**by_source)
    except SettingsError as error:
        raise ConfigError("environment", str(error)) from error
    except ValidationError as error:
        _raise_config_error(error.errors()[0], from_flags, config_file)


def _keys() -> Iterator[str]:
    """Every dotted key that can be set."""
    for name, field in Settings.model_fields.items():
        section = _section_of(field)
        if section is None:
            yield name
        else:
            yield from (f"{name}.{key}" for key in section.model_fields)


def _check_environment(environ: Mapping[str, str]) -> None:
    known = {variable_of(key) for key in _keys()}
    services = _services_in(environ)
    for name in environ:
        variable = name.upper()
        if not variable.startswith(ENV_PREFIX) or variable.startswith(_TEST_PREFIX):
            continue
        if variable in known or variable in _CLIENT_VARIABLES or variable == CONFIG_FILE_VARIABLE:
            continue
        if any(_is_of_service(variable, service) for service in services):
            continue
        raise ConfigError(name, f"unknown environment variable{_suggestion(variable, known)}")


def _services_in(environ: Mapping[str, str]) -> list[str]:
    """The services of Kubernetes that the environment tells of, as their variables begin."""
    hosts = [name for name in environ if name.endswith("_SERVICE_HOST")]
    return [name.removesuffix("_SERVICE_HOST") for name in hosts]


def _is_of_service(variable: str, service: str) -> bool:
    rest = variable.removeprefix(f"{service}_")
    return rest != variable and _SERVICE_VARIABLE.fullmatch(rest) is not None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"the settings file cannot be read: {error}") from error
    try:
        match path.suffix.lower():
            case ".yaml" | ".yml":
                data = yaml.safe_load(text)
            case ".toml":
                data = tomllib.loads(text)
            case ".json":
                data = json.loads(text)
            case suffix:
                raise ConfigError(
                    str(path),
                    f"expected a file ending in .yaml, .yml, .toml or .json, found {suffix!r}",
                )
    except (yaml.YAMLError, tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        # Without what the file says there, and so without the error itself: it may be a password.
        raise ConfigError(
            str(path), f"the settings file is not well formed{_where(error)}"
        ) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(str(path), f"expected a mapping of sections, found {_kind_of(data)}")
    # An empty section (`postgres:` and nothing below) parses to None and means its defaults.
    sections = cast("dict[object, Any]", data)
    return {str(name): {} if value is None else value for name, value in sections.items()}


def _nest(flat: Mapping[str, object]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, leaf = key.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return nested


def _raise_config_error(
    details: ErrorDetails, from_flags: Mapping[str, Any], config_file: Path | None
) -> NoReturn:
    key = ".".join(_model_path(details["loc"]))
    origin = _origin(key, from_flags, config_file)
    if details["type"] == "extra_forbidden":
        raise ConfigError(key, f"unknown key ({origin}){_suggestion(key, set(_keys()))}") from None
    if details["type"] == "model_type":
        raise ConfigError(
            key, f"expected a section of keys, found {_kind_of(details['input'])} ({origin})"
        ) from None
    expected = details["msg"].replace("Input should be", "expected").replace("Value error, ", "")
    if not expected.startswith("expected"):
        expected = f"bad value: {expected}"
    found = "a value that is not shown" if key in _SECRETS else _shown(details["input"])
    # Without pydantic's own error, which quotes what was found.
    raise ConfigError(key, f"{expected}, found {found} ({origin})") from None


def _model_path(location: tuple[int | str, ...]) -> Iterator[str]:
    """The key's own names: pydantic adds the tag of a union's member behind them."""
    section: type[Section] | None = Settings
    for part in location:
        if section is None:
            return
        yield str(part)
        section = _section_of(section.model_fields.get(str(part)))


def _section_of(field: FieldInfo | None) -> type[Section] | None:
    kind = field.annotation if field is not None else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _origin(key: str, from_flags: Mapping[str, Any], config_file: Path | None) -> str:
    node: Any = from_flags
    for part in key.split("."):
        node = cast("dict[str, Any]", node).get(part) if isinstance(node, dict) else None
    if node is not None:
        return f"flag for {key}"
    variable = variable_of(key)
    if variable in {name.upper() for name in os.environ}:
        return variable
    return f"file {config_file}" if config_file is not None else "default"


def _where(error: yaml.YAMLError | tomllib.TOMLDecodeError | json.JSONDecodeError) -> str:
    """What is wrong and at which place, as far as the parser tells without quoting the file."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        place = f" (at line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
        return f"{place}: {error.problem}"
    if isinstance(error, yaml.YAMLError):
        return ""
    return f": {error}"


def _kind_of(value: object) -> str:
    """What stands where a section should; a DSN with its password is what people try there."""
    match value:
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return _shown(value)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _suggestion(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
