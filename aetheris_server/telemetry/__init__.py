"""Logs, metrics and health: what a running server tells the people who run it.

Owns the process's logging configuration, the naming and the buckets of metrics, and the small HTTP
endpoint that serves them. Which events are logged and which metrics exist is left to the modules
they are about; they call `get_logger`, `counter`, `gauge` and `histogram`.
"""

from aetheris_server.telemetry.http import HttpEndpoint, Readiness, serve_http
from aetheris_server.telemetry.logs import Logger, configure_logging, get_logger
from aetheris_server.telemetry.metrics import counter, gauge, histogram

__all__ = [
    "HttpEndpoint",
    "Logger",
    "Readiness",
    "configure_logging",
    "counter",
    "gauge",
    "get_logger",
    "histogram",
    "serve_http",
]
