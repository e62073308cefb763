"""The report, as Markdown and a chart. Pure: the same tally gives the same bytes."""

from collections.abc import Iterable, Sequence
from typing import Final
from xml.sax.saxutils import escape

from examples.census.analysis import Figures
from examples.census.tally import Tally, largest_packages

REPORT_NAME: Final = "report.md"
CHART_NAME: Final = "chart.svg"

PACKAGES_SHOWN: Final = 16

_WIDTH: Final = 860
_LABEL_WIDTH: Final = 140
_NUMBER_WIDTH: Final = 80
_ROW: Final = 24
_BAR: Final = 16
_TOP: Final = 76
_FONT: Final = ' font-family="sans-serif" font-size="13"'
_KINDS: Final = (
    ("code", "#2f6f9f"),
    ("docstring", "#7fb3d5"),
    ("comment", "#c9a86a"),
    ("blank", "#e3e3e3"),
)


def render_markdown(subject: str, approver: str, tally: Tally) -> str:
    """The report; refers to the chart by CHART_NAME in the same folder."""
    parts = [
        f"# Census of {subject}",
        f"Approved by {approver}.",
        _summary(tally),
        f"![Lines by package]({CHART_NAME})",
        "## Packages",
        _packages_table(tally),
        "## Longest functions",
        _table(
            ("function", "file", "lines"),
            ((f"`{f.name}`", f"`{f.path}`", _number(f.lines)) for f in tally.longest),
            right_from=2,
        ),
    ]
    if tally.problem_count:
        parts += [
            "## Files that do not parse",
            _table(
                ("file", "problem"),
                ((f"`{p.path}`", _cell(p.reason)) for p in tally.problems),
                right_from=2,
            ),
        ]
    return "\n\n".join(parts) + "\n"


def render_chart(tally: Tally) -> str:
    """A bar for each package: its lines, by kind."""
    rows = largest_packages(tally.packages, PACKAGES_SHOWN)
    height = _TOP + len(rows) * _ROW + 16
    scale = (_WIDTH - _LABEL_WIDTH - _NUMBER_WIDTH) / max([f.lines for _, f in rows] + [1])
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"{_FONT}>',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 28, "Lines by package", ' font-size="17"'),
        *_legend(),
    ]
    for index, (name, figures) in enumerate(rows):
        parts += _bar(name, figures, _TOP + index * _ROW, scale)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def _summary(tally: Tally) -> str:
    total = tally.total
    share = 100 * (total.comment + total.docstring) / total.lines if total.lines else 0.0
    return (
        f"{_number(total.files)} files, {_number(total.lines)} lines: "
        f"{_number(total.code)} of code, {_number(total.docstring)} of docstrings, "
        f"{_number(total.comment)} of comments, {_number(total.blank)} blank. "
        f"Docstrings and comments are {share:.1f} % of it. "
        f"{_number(total.functions)} functions, {_number(total.classes)} classes, "
        f"{_number(total.imports)} imports, {_number(total.branches)} branches. "
        f"{_number(tally.problem_count)} files do not parse."
    )


def _packages_table(tally: Tally) -> str:
    rows = [*largest_packages(tally.packages, PACKAGES_SHOWN), ("**all**", tally.total)]
    return _table(
        ("package", "files", "lines", "code", "functions", "classes", "branches"),
        (
            (
                name,
                _number(f.files),
                _number(f.lines),
                _number(f.code),
                _number(f.functions),
                _number(f.classes),
                _number(f.branches),
            )
            for name, f in rows
        ),
        right_from=1,
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], right_from: int) -> str:
    rule = ["---" if index < right_from else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: int) -> str:
    return f"{value:,}"


def _legend() -> list[str]:
    parts: list[str] = []
    for index, (kind, colour) in enumerate(_KINDS):
        x = 16 + index * 110
        parts.append(f'<rect x="{x}" y="42" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 18, 53, kind))
    return parts


def _bar(name: str, figures: Figures, y: int, scale: float) -> list[str]:
    baseline = y + _BAR - 3
    parts = [_text(_LABEL_WIDTH - 8, baseline, name, ' text-anchor="end"')]
    x = float(_LABEL_WIDTH)
    for kind, colour in _KINDS:
        width = getattr(figures, kind) * scale
        parts.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{colour}"/>'
        )
        x += width
    parts.append(_text(x + 6, baseline, _number(figures.lines)))
    return parts


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#333333"{attributes}>{escape(text)}</text>'
