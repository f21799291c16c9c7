"""A picture of losses against bytes: lines over a logarithmic axis, as one small SVG that stands
alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tequio.report.html.charts import Scale, scale
from tequio.report.html.markup import Safe, el

WIDTH, HEIGHT = 720.0, 400.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 500.0, 40.0, 360.0
COLOURS = ("#111111", "#1f6f8b", "#b3541e", "#5b7f2b", "#8a3b8f", "#a08000", "#c2185b", "#607d8b")
UNITS = ("B", "kB", "MB", "GB")


@dataclass(frozen=True)
class Curve:
    """One arm: (bytes, loss) in order."""

    label: str
    points: tuple[tuple[float, float], ...]


def picture(title: str, along: str, curves: Sequence[Curve]) -> str:
    """The SVG.

    Losses are on the left axis; each line ends in a dot with its number in the legend at the right.
    """
    drawn = [curve for curve in curves if curve.points]
    xs = [math.log10(x) for curve in drawn for x, _ in curve.points]
    losses = sorted(y for curve in drawn for _, y in curve.points)
    low, high = math.floor(min(xs)), math.ceil(max(xs))
    across = Scale(low, max(high, low + 1), tuple(range(low, high + 1)), LEFT, RIGHT)
    levels = scale(
        losses[: max(2, int(0.95 * len(losses)))]
    )  # the first rounds of many would flatten the rest
    up = Scale(levels.low, levels.high, levels.ticks, BOTTOM, TOP)
    parts = [
        el("title", title),
        _text(LEFT, 20, title, "start"),
        _text(RIGHT, BOTTOM + 34, along, "end"),
    ]
    parts += [_line(LEFT, up.at(tick), RIGHT, up.at(tick)) for tick in up.ticks]
    parts += [_text(LEFT - 6, up.at(tick) + 4, f"{tick:g}", "end") for tick in up.ticks]
    parts += [_text(across.at(tick), BOTTOM + 18, _size(tick), "middle") for tick in across.ticks]
    for index, curve in enumerate(drawn):
        colour = COLOURS[index % len(COLOURS)]
        at = [(across.at(math.log10(x)), up.at(y)) for x, y in curve.points]
        path = " ".join(f"{x:g},{y:g}" for x, y in at)
        parts.append(el("polyline", points=path, fill="none", stroke=colour, stroke_width=1.6))
        parts.append(el("circle", cx=at[-1][0], cy=at[-1][1], r=4, fill=colour))
        parts.append(el("circle", cx=RIGHT + 20, cy=TOP + 22 * index, r=4, fill=colour))
        parts.append(
            _text(
                RIGHT + 30,
                TOP + 4 + 22 * index,
                f"{curve.label}: {curve.points[-1][1]:.3f}",
                "start",
            )
        )
    box = f"0 0 {WIDTH:g} {HEIGHT:g}"
    back = el("rect", width="100%", height="100%", fill="#ffffff")
    return (
        str(el("svg", back, *parts, xmlns="http://www.w3.org/2000/svg", viewBox=box, role="img"))
        + "\n"
    )


def _size(power: float) -> str:
    unit, rest = divmod(int(power), 3)
    return f"{10**rest} {UNITS[unit]}" if unit < len(UNITS) else f"1e{power:g} B"


def _line(x1: float, y1: float, x2: float, y2: float) -> Safe:
    return el("line", x1=x1, y1=y1, x2=x2, y2=y2, stroke="#dddddd")


def _text(x: float, y: float, words: str, anchor: str) -> Safe:
    return el(
        "text",
        words,
        x=x,
        y=y,
        text_anchor=anchor,
        font_family="sans-serif",
        font_size=12,
        fill="#333333",
    )
