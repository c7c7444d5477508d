"""A report as CSV, for programs, and as PDF with a chart, for people."""

import csv
import io
from collections.abc import Iterable
from html import escape

from django.utils.translation import gettext as _
from reportlab.graphics.charts.barcharts import VerticalBarChart
from reportlab.graphics.charts.legends import Legend
from reportlab.graphics.shapes import Drawing
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4, landscape
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Spacer, Table, TableStyle

from .figures import COUNTED, Day, total
from .states import OrderState

#: A spreadsheet takes a text that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")
INK, LINE = colors.HexColor("#0b6e4f"), colors.HexColor("#c8c8c0")
#: What the chart shows, and in which colour.
DRAWN = {OrderState.PLACED: LINE, OrderState.DELIVERED: INK}
MOST_LABELS = 15


def as_csv(days: list[Day]) -> bytes:
    """Return one line per day, then one per cause of failure."""
    file = io.StringIO()
    writer = csv.writer(file)
    currencies = _currencies(days)
    writer.writerow(
        ["day", *COUNTED, *(f"revenue {code}" for code in currencies), "sent", "failed"]
    )
    for day in days:
        writer.writerow(
            [
                day.day.isoformat(),
                *(day.steps[state] for state in COUNTED),
                *(day.revenue.get(code, "0.00") for code in currencies),
                day.sent,
                day.failed,
            ]
        )
    writer.writerow([])
    writer.writerow(["cause of failed jobs", "count"])
    writer.writerows([_cell(cause), count] for cause, count in total(days).causes.most_common())
    return file.getvalue().encode()


def as_pdf(title: str, days: list[Day]) -> bytes:
    """Return the same on paper, with a chart of the orders."""
    file = io.BytesIO()
    document = SimpleDocTemplate(file, pagesize=landscape(A4), title=title, author="queueadmin")
    styles = getSampleStyleSheet()
    summed = total(days)
    story: list[Flowable] = [
        Paragraph(escape(title), styles["Title"]),
        _table([[name, str(value)] for name, value in totals(summed)]),
        Spacer(1, 18),
        _chart(days),
        Spacer(1, 18),
        _table([[_("Day"), *(str(state.label) for state in COUNTED)], *_rows(days)], has_head=True),
    ]
    if summed.causes:
        causes = [[escape(cause), str(count)] for cause, count in summed.causes.most_common(20)]
        story += [Paragraph(escape(_("Failed jobs by cause")), styles["Heading2"]), _table(causes)]
    document.build(story)
    return file.getvalue()


def totals(summed: Day) -> list[tuple[str, str]]:
    """Return the figures a mail shows, by name."""
    figures = [(str(state.label), str(summed.steps[state])) for state in COUNTED]
    figures += [
        (_("Revenue %(currency)s") % {"currency": code}, str(amount))
        for code, amount in sorted(summed.revenue.items())
    ]
    figures += [
        (_("Messages sent"), str(summed.sent)),
        (_("Messages failed or unknown"), str(summed.failed)),
        (_("Jobs failed for good"), str(summed.causes.total())),
    ]
    return figures


def _rows(days: list[Day]) -> Iterable[list[str]]:
    for day in days:
        yield [day.day.isoformat(), *(str(day.steps[state]) for state in COUNTED)]


def _currencies(days: list[Day]) -> list[str]:
    return sorted({code for day in days for code in day.revenue}) or ["EUR"]


def _cell(value: str) -> str:
    return f"'{value}" if value.startswith(FORMULA) else value


def _table(rows: list[list[str]], *, has_head: bool = False) -> Table:
    style = [("LINEBELOW", (0, 0), (-1, -1), 0.25, LINE), ("ALIGN", (1, 0), (-1, -1), "RIGHT")]
    if has_head:
        style.append(("FONTNAME", (0, 0), (-1, 0), "Helvetica-Bold"))
    return Table(rows, repeatRows=int(has_head), style=TableStyle(style), hAlign="LEFT")


def _chart(days: list[Day]) -> Drawing:
    """Draw the orders placed and delivered on each day, with a key to the colours."""
    drawing = Drawing(700, 190)
    chart = VerticalBarChart()
    chart.x, chart.y, chart.width, chart.height = 30, 30, 650, 130
    chart.data = [[day.steps[state] for day in days] for state in DRAWN]
    for at, colour in enumerate(DRAWN.values()):
        chart.bars[at].fillColor, chart.bars[at].strokeColor = colour, None
    chart.valueAxis.valueMin = 0
    # Orders are whole, also where there are few.
    chart.valueAxis.valueStep = max(-(-max(map(max, chart.data)) // 5), 1)
    # As many as stand side by side.
    every = -(-len(days) // MOST_LABELS)
    chart.categoryAxis.categoryNames = [
        f"{day.day:%d.%m.}" if at % every == 0 else "" for at, day in enumerate(days)
    ]
    chart.categoryAxis.visibleTicks = len(days) <= MOST_LABELS
    key = Legend()
    key.x, key.y, key.alignment, key.columnMaximum = 30, 180, "right", 1
    key.colorNamePairs = [(colour, str(state.label)) for state, colour in DRAWN.items()]
    key.deltax, key.strokeWidth = 90, 0
    drawing.add(chart)
    drawing.add(key)
    return drawing
