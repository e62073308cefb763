"""The server's settings: what can be set, from where, and what a mistake in them reads like.

A value comes from a flag, else the environment (`AETHERIS_POSTGRES__DSN`), else the settings file,
else the default here. Every key and value is checked before anything starts; `ConfigError` names
the key, where it came from, what was found and what was expected. Settings are frozen, and building
them from code (`Settings(grpc=GrpcSettings(port=0))`) reads neither environment nor files. Whether
a value is enough for a command is the command's affair (`Settings.require_stores`).
"""

from aetheris_server.config.limits import CAPPED_LIMITS, NAMESPACE_LIMITS, limits_of_namespace
from aetheris_server.config.loading import load_settings
from aetheris_server.config.sections import (
    MAX_PROCESSES,
    GrpcSettings,
    HistorySettings,
    HttpSettings,
    InternalSettings,
    LimitSettings,
    LogSettings,
    MatchingSettings,
    PostgresSettings,
    RedisSettings,
    Settings,
    internal_port,
)
from aetheris_server.config.values import MAX_PORT, ConfigError

__all__ = [
    "CAPPED_LIMITS",
    "MAX_PORT",
    "MAX_PROCESSES",
    "NAMESPACE_LIMITS",
    "ConfigError",
    "GrpcSettings",
    "HistorySettings",
    "HttpSettings",
    "InternalSettings",
    "LimitSettings",
    "LogSettings",
    "MatchingSettings",
    "PostgresSettings",
    "RedisSettings",
    "Settings",
    "internal_port",
    "limits_of_namespace",
    "load_settings",
]
