"""Made-up values for every template, so that people can see what a message looks like."""

from typing import Any

from .models import Event

MOMENT = "2026-03-02T12:00:00+00:00"
LATER = "2026-03-02T15:00:00+00:00"

SAMPLE: dict[str, Any] = {
    "name": "Harbour Shop",
    "order": "1042",
    "vendor": "North Wholesale",
    "shop": "Harbour Shop",
    "total": "124.50 EUR",
    "lines": [
        {"product": "Black tea (case of 24)", "quantity": 2, "total": "83.00 EUR"},
        {"product": "Black tea (case of 12)", "quantity": 2, "total": "41.50 EUR"},
    ],
    "until": LATER,
    "link": "https://example.com/…",
    "starts": MOMENT,
    "ends": LATER,
    "rest": "41.50 EUR",
    "due": MOMENT,
    "balance": "83.00 EUR",
    "available": "917.00 EUR",
    "report": "Report of 2026-03-02",
    "figures": [{"name": "placed", "value": "12"}, {"name": "delivered", "value": "11"}],
    "account": "Credit of Harbour Shop",
    "entries": "76.00 EUR",
    "difference": "7.00 EUR",
}


def context(event: Event) -> dict[str, Any]:
    """Return values for every name the templates of an event may use."""
    if event == Event.VENDOR_REQUEST:
        return {**SAMPLE, "lines": "2 × Black tea (case of 24), 2 × Black tea (case of 12)"}
    return SAMPLE
