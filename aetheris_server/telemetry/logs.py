"""Structured logs: one event per line, as JSON for programs or coloured text for people.

structlog's events and the standard library's records leave through the same handler in the same
form. Never logs payloads or credentials: callers pass ids, counts and durations.
"""

import logging
import logging.handlers
import sys
from typing import Any, assert_never, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from aetheris_server.config import ConfigError, LogSettings

Logger = FilteringBoundLogger

# Added to every event, ours or the standard library's.
_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)

# Without the frames' local variables, which hold payloads and credentials.
_TRACEBACKS_AS_JSON = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)


def get_logger(name: str, **values: object) -> Logger:
    """A logger called `name` that adds `values` to each of its events; usable before
    `configure_logging`.
    """
    return cast(Logger, structlog.stdlib.get_logger(name, **values))


def configure_logging(settings: LogSettings, process: str = "") -> None:
    """Send every log event of this process to where the settings say. Replaces an earlier
    configuration.

    Args:
        settings: Where, and from which level on.
        process: Added to each event, if it is one of several that log to the same place.

    Raises:
        ConfigError: The log file cannot be opened.
    """
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared = [*_SHARED, _naming(process)] if process else _SHARED
    handler = _handler(settings)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings),
            ],
        )
    )
    # Its debug events are about its own event loop, hundreds a second.
    logging.getLogger("grpc").setLevel(logging.WARNING)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level)
    structlog.configure(
        processors=[
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        # Drops what is below the level in the call itself, before anything is formatted.
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        # A cached logger would keep the configuration of its first use.
        cache_logger_on_first_use=False,
    )


def _naming(process: str) -> Processor:
    def name(_: object, __: str, event: EventDict) -> EventDict:
        event["process"] = process
        return event

    return name


def _handler(settings: LogSettings) -> logging.Handler:
    if settings.file is None:
        return logging.StreamHandler(sys.stderr)
    try:
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        # Reopens the file when logrotate has moved it.
        return logging.handlers.WatchedFileHandler(settings.file, encoding="utf-8")
    except OSError as error:
        raise ConfigError("log.file", f"{settings.file} cannot be opened: {error}") from error


def _renderers(settings: LogSettings) -> list[Processor]:
    match settings.format:
        case "json":
            return [_TRACEBACKS_AS_JSON, structlog.processors.JSONRenderer(_to_json)]
        case "console":
            colors = settings.file is None and sys.stderr.isatty()
            return [
                # As text, before it is escaped: an error may say what somebody wrote.
                structlog.processors.format_exc_info,
                _escape_text,
                structlog.dev.ConsoleRenderer(
                    colors=colors, exception_formatter=structlog.dev.plain_traceback
                ),
            ]
        case _:
            assert_never(settings.format)


def _escape_text(_: object, __: str, event: EventDict) -> EventDict:
    """Show what is not printable as its escape: ids are their writers' text, and one with an escape
    character in it would steer the terminal. Lines stay lines; JSON escapes by itself.
    """
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "\n".join(map(_escaped, value.split("\n")))
    return event


def _escaped(line: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()
        for char in line
    )


def _to_json(event: Any, **_: Any) -> str:
    return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
