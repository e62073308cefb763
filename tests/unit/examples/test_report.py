from xml.etree import ElementTree as ET

import pytest

from examples.census.analysis import Figures, FileCensus, LongFunction
from examples.census.report import CHART_NAME, render_chart, render_markdown
from examples.census.tally import Tally, tally

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def total() -> Tally:
    return tally(
        [
            FileCensus(
                "json/decoder.py",
                Figures(files=1, lines=1500, code=1000, docstring=200, comment=100, blank=200),
                LongFunction(40, "json/decoder.py", "decode"),
            ),
            FileCensus("<odd>&.py", Figures(files=1, lines=500), problem="SyntaxError: a | b\nc"),
        ]
    )


def test_report_names_subject_approver_and_chart(total: Tally) -> None:
    text = render_markdown("the library", "Ada", total)
    assert text.startswith("# Census of the library\n\nApproved by Ada.\n")
    assert f"]({CHART_NAME})" in text


def test_report_has_a_row_for_each_package_and_the_total(total: Tally) -> None:
    rows = render_markdown("x", "y", total).splitlines()
    assert "| json | 1 | 1,500 | 1,000 | 0 | 0 | 0 |" in rows
    assert "| **all** | 2 | 2,000 | 1,000 | 0 | 0 | 0 |" in rows
    assert "| `decode` | `json/decoder.py` | 40 |" in rows


def test_report_keeps_a_problem_within_its_cell(total: Tally) -> None:
    assert "| `<odd>&.py` | SyntaxError: a \\| b c |" in render_markdown("x", "y", total)


def test_report_without_problems_has_no_section_for_them() -> None:
    assert "do not parse\n" not in render_markdown("x", "y", Tally())


def test_chart_has_bars_to_scale(total: Tally) -> None:
    chart = ET.fromstring(render_chart(total))
    bars = [
        float(rect.attrib["width"])
        for rect in chart.iter(f"{SVG}rect")
        if rect.attrib["height"] == "16"
    ]
    code, docstring, comment, blank = bars[:4]
    assert (code / docstring, blank / comment) == (
        pytest.approx(5, rel=0.01),
        pytest.approx(2, rel=0.01),
    )


def test_chart_escapes_names() -> None:
    chart = render_chart(tally([FileCensus("<a>&/b.py", Figures(files=1, lines=1))]))
    texts = [text.text for text in ET.fromstring(chart).iter(f"{SVG}text")]
    assert "<a>&" in texts


@pytest.mark.parametrize("files", [[], [FileCensus("a.py", Figures(files=1))]])
def test_chart_of_nothing_is_a_chart(files: list[FileCensus]) -> None:
    assert ET.fromstring(render_chart(tally(files))).tag == f"{SVG}svg"
