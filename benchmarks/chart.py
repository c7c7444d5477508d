"""A report as a chart: a bar per median, a line from the lowest to the highest value."""

from collections.abc import Sequence
from xml.sax.saxutils import escape

from .results import Report, Row

_WIDTH, _LEFT, _RIGHT, _LINE = 900, 330, 130, 24
_COLOURS = {True: "#2a6fb0", False: "#9aa4ae"}


def svg(report: Report) -> str:
    """Return the chart as SVG; each unit has a scale of its own, which begins at 0."""
    parts, top = [_text(8, 22, f"{report.name}: {_facts(report)}", size=12)], 36
    for unit in dict.fromkeys(row.unit for row in report.rows):
        rows = [row for row in report.rows if row.unit == unit]
        parts.append(_text(8, top + 16, unit, size=13, weight="bold"))
        parts += _bars(rows, top + _LINE)
        top += _LINE * (len(rows) + 1) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" '
        f'height="{top}" font-family="sans-serif" role="img">'
        f'<rect width="{_WIDTH}" height="{top}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _facts(report: Report) -> str:
    return ", ".join(str(fact) for fact in report.machine.values())


def _bars(rows: Sequence[Row], top: int) -> list[str]:
    most = max(row.max for row in rows) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / most
    parts = []
    for number, row in enumerate(rows):
        y = top + number * _LINE
        middle, colour = y + 9, _COLOURS[row.system.startswith("queueadmin")]
        low, high = _LEFT + row.min * scale, _LEFT + row.max * scale
        parts += [
            _text(_LEFT - 8, y + 14, row.system, anchor="end"),
            f'<rect x="{_LEFT}" y="{y}" width="{row.median * scale:.1f}" height="18" fill="{colour}"/>',
            f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="#222222" stroke-width="1.5"/>',
            _text(high + 8, y + 14, f"{row.median:,.4g}"),
        ]
    return parts


def _text(
    x: float, y: int, words: str, *, size: int = 12, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" font-size="{size}" text-anchor="{anchor}" '
        f'font-weight="{weight}" fill="#222222">{escape(words)}</text>'
    )
