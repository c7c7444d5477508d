"""Sparklines: a row of bars without axes, drawn by the server."""

from collections.abc import Iterable

WIDTH, HEIGHT = 96.0, 20.0


def bars(values: Iterable[tuple[int, int]]) -> tuple[str, str] | None:
    """Return bars of good on top of bad as two paths of an SVG; None where all are zero."""
    pairs = list(values)
    most = max((good + bad for good, bad in pairs), default=0)
    if not most:
        return None
    step = WIDTH / len(pairs)
    width = step * 0.75
    paths = ["", ""]
    for index, (good, bad) in enumerate(pairs):
        low = HEIGHT * bad / most
        high = HEIGHT * good / most
        for side, (height, top) in enumerate(((high, HEIGHT - high - low), (low, HEIGHT - low))):
            if height:
                paths[side] += (
                    f"M{index * step:.1f} {top:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z"
                )
    return paths[0], paths[1]
