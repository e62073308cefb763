"""Metrics of several processes in one text."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from aetheris_server.processes.metrics import merge_metrics, show_metrics
from aetheris_server.telemetry import counter, gauge, histogram

_COUNT = counter("test_merged", 'Of this test: "a\\b"\n.', ["result"])
_LEVEL = gauge("test_merged_level", "Of this test.")
_SECONDS = histogram("test_merged_seconds", "Of this test.", buckets=(1.0,))


def test_merged_metrics_are_those_of_each_process_under_one_head() -> None:
    _COUNT.labels('a "quoted" one').inc(3)
    _LEVEL.set(7)
    _SECONDS.observe(0.5)
    merged = merge_metrics([show_metrics("1"), show_metrics("2")])
    families = list(text_string_to_metric_families(merged))
    names = [family.name for family in families]
    assert len(names) == len(set(names))
    (found,) = [family for family in families if family.name == "aetheris_test_merged"]
    assert [(sample.labels, sample.value) for sample in found.samples] == [
        ({"process": process, "result": 'a "quoted" one'}, 3.0) for process in ("1", "2")
    ]
    (seconds,) = [family for family in families if family.name == "aetheris_test_merged_seconds"]
    assert len(seconds.samples) == 2 * 4


def test_merged_metrics_have_those_that_one_process_alone_has() -> None:
    one = "# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\n"
    two = one.replace("1.0", "3.0")
    assert merge_metrics([one, "# HELP b B.\n# TYPE b gauge\nb 2.0\n" + two]) == (
        "# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\na_total 3.0\n"
        "# HELP b B.\n# TYPE b gauge\nb 2.0\n"
    )


@pytest.mark.parametrize("texts", [[], [""], ["", ""]])
def test_merged_metrics_of_nothing_are_nothing(texts: list[str]) -> None:
    assert merge_metrics(texts) == ""
