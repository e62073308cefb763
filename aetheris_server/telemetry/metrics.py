"""Prometheus metrics, all named `aetheris_*`.

A metric is defined once, at the top of the module it is about. Label values come from small fixed
sets (an RPC, a result), never from users: an id as a label would grow without bound.
"""

from collections.abc import Sequence

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    values,
)

# Prometheus has no use for the `_created` series, which double what a scrape carries.
disable_created_metrics()
# Else PROMETHEUS_MULTIPROC_DIR, which is for others' servers of several processes, would have every
# count written to files, and a folder that is not there end the program.
values.ValueClass = values.MutexValue

_NAMESPACE = "aetheris"
# From half a millisecond, what a local commit takes, to a minute, the longest poll.
_SECONDS_BUCKETS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip


def counter(
    name: str, what: str, labels: Sequence[str] = (), *, registry: CollectorRegistry = REGISTRY
) -> Counter:
    """Define `aetheris_<name>_total`, a count that only grows."""
    return Counter(name, what, labels, namespace=_NAMESPACE, registry=registry)


def gauge(
    name: str, what: str, labels: Sequence[str] = (), *, registry: CollectorRegistry = REGISTRY
) -> Gauge:
    """Define `aetheris_<name>`, a value that goes up and down."""
    return Gauge(name, what, labels, namespace=_NAMESPACE, registry=registry)


def histogram(
    name: str, what: str, labels: Sequence[str] = (), *, buckets: Sequence[float] = _SECONDS_BUCKETS
) -> Histogram:
    """Define `aetheris_<name>`, a distribution; in seconds unless `buckets` says otherwise."""
    return Histogram(name, what, labels, namespace=_NAMESPACE, buckets=buckets)
