"""Logs and metrics: what a running server tells the people who run it.

Owns the process's logging configuration, and the naming and the buckets of metrics. Which events
are logged and which metrics exist is left to the modules they are about; they call `get_logger`,
`counter`, `gauge` and `histogram`. Metrics are shown by `web`.
"""

from aetheris_server.telemetry.logs import Logger, configure_logging, get_logger
from aetheris_server.telemetry.metrics import counter, gauge, histogram

__all__ = [
    "Logger",
    "configure_logging",
    "counter",
    "gauge",
    "get_logger",
    "histogram",
]
