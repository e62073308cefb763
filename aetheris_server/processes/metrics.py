"""The metrics of several processes as one text: each series of a process has its label `process`.

Series are neither summed nor averaged: a counter that begins anew with its process is a reset of
that series alone, which Prometheus understands, and a gauge is that of its process. Sums are for
queries (`sum without (process) (...)`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from prometheus_client import REGISTRY, CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector

from aetheris_server.telemetry import counter, gauge

LABEL = "process"

REGISTRY_OF_SUPERVISOR = CollectorRegistry()
"""The supervisor's own. What its modules count beside that, as those of a host do, is not shown."""

READY = gauge(
    "process_ready", "Whether the process can serve.", [LABEL], registry=REGISTRY_OF_SUPERVISOR
)
RESTARTS = counter(
    "process_restarts",
    "Times that the process ended by itself and was started again.",
    [LABEL],
    registry=REGISTRY_OF_SUPERVISOR,
)


class _Labelled(Collector):
    def __init__(self, process: str) -> None:
        self._process = process

    def collect(self) -> Iterable[Metric]:
        for metric in REGISTRY.collect():
            metric.samples = [
                sample._replace(labels={**sample.labels, LABEL: self._process})
                for sample in metric.samples
            ]
            yield metric


@dataclass(slots=True)
class _Family:
    heads: list[str] = field(default_factory=list[str])
    samples: list[str] = field(default_factory=list[str])


def show_metrics(process: str) -> str:
    """The metrics of this process, as Prometheus' text."""
    return generate_latest(_Labelled(process)).decode()


def show_metrics_of_supervisor() -> str:
    """The supervisor's, as Prometheus' text."""
    return generate_latest(REGISTRY_OF_SUPERVISOR).decode()


def merge_metrics(texts: Iterable[str]) -> str:
    """One text of several whose series differ by a label: each metric's lines are together."""
    families: dict[str, _Family] = {}
    for text in texts:
        family, is_new = _Family(), True
        for line in text.splitlines(keepends=True):
            if line.startswith("# HELP "):
                name = line.split(" ", 3)[2]
                is_new = name not in families
                family = families.setdefault(name, _Family())
            if not line.startswith("#"):
                family.samples.append(line)
            elif is_new:
                family.heads.append(line)
    return "".join(
        line for family in families.values() for line in (*family.heads, *family.samples)
    )
