"""Figures as inline SVG: interval rows, an ordered field of intervals, curves, and one divided bar.

Places are given in per cent of the width and text in pixels, so one figure serves a phone and a
page of paper alike. Colours come from the page's style sheet; shape and fill say the same as
colour.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from tequio.report.html.markup import Safe, el, join

LEFT, RIGHT = 1.5, 98.5  # per cent of the width between which values lie
ROW = 46
LABEL = 34  # letters of a label in a figure; the table has the whole name


@dataclass(frozen=True)
class Caption:
    """What a figure says in words; `key` makes its ids unique."""

    key: str
    title: str
    description: str


@dataclass(frozen=True)
class Scale:
    """Values from `low` to `high` onto per cents from `left` to `right`, and the ticks between."""

    low: float
    high: float
    ticks: tuple[float, ...]
    left: float = LEFT
    right: float = RIGHT

    def at(self, value: float) -> float:
        """Per cent of the width (or height); values outside are held at the edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.left + share * (self.right - self.left), 2)


@dataclass(frozen=True)
class Axis:
    """The scale of the rows, the words of its ticks, and what its two ends mean."""

    scale: Scale
    labels: Sequence[str]
    ends: tuple[str, str] | None = None


@dataclass(frozen=True)
class Row:
    """One row: a label, the value in words, dots with their class, and a line from low to high."""

    label: str
    value: str
    dots: Sequence[tuple[float, str]]
    line: tuple[float, float] | None = None
    tick: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Point:
    """One participant in a field, or one round of a curve: a value, its class, and its interval."""

    value: float
    style: str
    low: float | None = None
    high: float | None = None


def scale(values: Sequence[float], zero: bool = False, want: int = 5) -> Scale:
    """A scale with round ticks (1, 2 or 5 times a power of ten) that holds all values, and zero if
    asked.
    """
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = max(abs(high) * 0.1, 0.01)
        low, high = low - pad, high + pad
    rough = (high - low) / want
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1.0, 2.0, 5.0, 10.0) if m * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], ticks)


def rows(caption: Caption, axis: Axis, items: Sequence[Row]) -> Safe:
    """Interval rows, one under the other: label at the left, value at the right, dots and line
    beneath.
    """
    top = 24 if axis.ends else 6
    height = top + ROW * len(items) + 24
    places = [(f"{axis.scale.at(tick)}%", "grid" if tick else "zero") for tick in axis.scale.ticks]
    grid = [el("line", class_=style, x1=x, x2=x, y1=top, y2=height - 22) for x, style in places]
    left, right = axis.ends or ("", "")
    ends = [_text("0", 12, left, "soft"), _text("100%", 12, right, "soft end")] if axis.ends else []
    drawn = [_row(item, axis.scale, top + i * ROW) for i, item in enumerate(items)]
    return _figure(caption, height, [*grid, *ends, *drawn, *_ticks(axis, height - 6)])


def _row(item: Row, along: Scale, top: float) -> Safe:
    y = top + 31
    parts = [
        el("line", class_="track", x1=f"{LEFT}%", x2=f"{RIGHT}%", y1=y, y2=y),
        _text("0", top + 16, shorten(item.label), "label"),
        _text("100%", top + 16, item.value, "value end"),
    ]
    if item.line:
        style = item.dots[0][1] if len(item.dots) == 1 else "plain"
        x1, x2 = (f"{along.at(v)}%" for v in item.line)
        parts.append(el("line", class_=f"interval {style}", x1=x1, x2=x2, y1=y, y2=y))
    if item.tick is not None:
        x = f"{along.at(item.tick)}%"
        parts.append(el("line", class_="tick", x1=x, x2=x, y1=y - 8, y2=y + 8))
    parts += [_dot(along.at(value), y, style) for value, style in item.dots]
    return el("g", *parts)


def field(caption: Caption, axis: Axis, points: Sequence[Point], along: str) -> Safe:
    """Many intervals as thin upright lines in the order given; values run upwards."""
    height, top, bottom = 320, 16, 290
    across = Scale(0, max(1, len(points) - 1), (), 13.0, RIGHT)
    up = Scale(axis.scale.low, axis.scale.high, axis.scale.ticks, bottom, top)
    parts = _levels(up, axis.labels)
    for i, point in enumerate(points):
        x, y = f"{across.at(i)}%", up.at(point.value)
        if point.low is not None and point.high is not None:
            y1, y2 = up.at(point.low), up.at(point.high)
            parts.append(
                el("line", class_=f"interval thin {point.style}", x1=x, x2=x, y1=y1, y2=y2)
            )
        parts.append(el("circle", class_=f"dot small {point.style}", cx=x, cy=y, r=2.6))
    return _figure(caption, height, [*parts, _text("100%", height - 6, along, "soft end")])


@dataclass(frozen=True)
class Curves:
    """What `curves` draws: the mean of each round, thin lines or a band behind, and the best
    round.
    """

    mean: Sequence[tuple[int, Point]]
    thin: Sequence[Sequence[tuple[int, float]]]
    band: Sequence[tuple[int, float, float]]
    best: tuple[int, str] | None
    rounds: str


def curves(caption: Caption, axis: Axis, drawn: Curves) -> Safe:
    """Loss against round; rejected rounds are open diamonds, the line joins the accepted ones."""
    height, top, bottom = 330, 24, 284
    last = max([r for r, _ in drawn.mean] + [1])
    across = Scale(0, last, (), 11.0, 97.0)
    up = Scale(axis.scale.low, axis.scale.high, axis.scale.ticks, bottom, top)
    parts = _levels(up, axis.labels)
    if drawn.best:
        x = across.at(drawn.best[0])
        side = "end" if x > 60 else ""
        parts.append(el("line", class_="best", x1=f"{x}%", x2=f"{x}%", y1=top - 8, y2=bottom))
        parts.append(_text(f"{x}%", top - 12, drawn.best[1], f"soft {side}"))
    parts.append(_lines(across, up, drawn, height))
    parts += [
        _dot(across.at(round_), up.at(point.value), point.style) for round_, point in drawn.mean
    ]
    named = range(0, last + 1, max(1, math.ceil(last / 10)))
    parts += [
        _text(f"{across.at(round_)}%", bottom + 20, str(round_), "soft middle") for round_ in named
    ]
    return _figure(caption, height, [*parts, _text("100%", height - 4, drawn.rounds, "soft end")])


def _lines(across: Scale, up: Scale, drawn: Curves, height: int) -> Safe:
    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{across.at(x):g},{up.at(y):g}" for x, y in points)

    parts = [
        el("polyline", class_="thin", points=path(line)) for line in drawn.thin if len(line) > 1
    ]
    if drawn.band:
        there = [(float(r), low) for r, low, _ in drawn.band]
        back = [(float(r), high) for r, _, high in reversed(drawn.band)]
        parts.append(el("polygon", class_="band", points=path([*there, *back])))
    joined = [(float(r), p.value) for r, p in drawn.mean if "rejected" not in p.style]
    if len(joined) > 1:
        parts.append(el("polyline", class_="mean", points=path(joined)))
    return el(
        "svg",
        *parts,
        viewBox=f"0 0 100 {height}",
        preserveAspectRatio="none",
        width="100%",
        height=height,
    )


def divided(caption: Caption, parts: Sequence[tuple[int, str]]) -> Safe:
    """One bar divided by counts."""
    total, start, drawn = sum(n for n, _ in parts) or 1, 0.0, []
    for count, style in parts:
        width = 100 * count / total
        if count:
            gap = 0.6 if start + width < 99.9 else 0
            drawn.append(
                el(
                    "rect",
                    class_=f"part {style}",
                    x=f"{start:.2f}%",
                    y=0,
                    width=f"{max(0.4, width - gap):.2f}%",
                    height=12,
                )
            )
        start += width
    return _figure(caption, 12, drawn, "chart bar")


def glyph(style: str) -> Safe:
    """A small mark for legends and tables; it repeats what the word beside it says."""
    line = el("line", class_=style, x1=0, x2=16, y1=7, y2=7)
    marks = {
        "mean": line,
        "thin": line,
        "band": el("rect", class_="band", x=0, y=2, width=16, height=10),
    }
    mark = marks.get(style) or _dot(8, 7, style, "")
    return el("svg", mark, class_="glyph", width=16, height=14, aria_hidden="true")


def shorten(label: str, most: int = LABEL) -> str:
    """A long label cut with an ellipsis."""
    return label if len(label) <= most else label[: most - 1].rstrip() + "…"


def _dot(x: float, y: float, style: str, unit: str = "%") -> Safe:
    """Filled circle, open circle (too few texts), square (keeps its own) or diamond (loses,
    rejected).
    """
    drawn, kind = f"dot {style}", style.split()[0]
    if kind not in {"kept_local", "loses", "rejected"}:
        return el("circle", class_=drawn, cx=f"{x:g}{unit}", cy=y, r=5)
    square = el("rect", class_=drawn, x=-4.6, y=-4.6, width=9.2, height=9.2)
    diamond = el("path", class_=drawn, d="M0 -6.4 L6.4 0 L0 6.4 L-6.4 0 Z")
    shape = square if kind == "kept_local" else diamond
    return el("svg", shape, x=f"{x:g}{unit}", y=y, overflow="visible", class_="place")


def _text(x: str, y: float, words: str, style: str) -> Safe:
    return el("text", words, x=x, y=y, class_=style)


def _ticks(axis: Axis, y: float) -> list[Safe]:
    places = [axis.scale.at(tick) for tick in axis.scale.ticks]
    sides = ["" if x < 6 else "end" if x > 94 else "middle" for x in places]
    return [
        _text(f"{x}%", y, label, f"soft {side}".rstrip())
        for x, label, side in zip(places, axis.labels, sides, strict=True)
    ]


def _levels(up: Scale, labels: Sequence[str]) -> list[Safe]:
    parts: list[Safe] = []
    for tick, label in zip(up.ticks, labels, strict=True):
        y, style = up.at(tick), "zero" if tick == 0 else "grid"
        parts += [
            el("line", class_=style, x1="0", x2="100%", y1=y, y2=y),
            _text("0", y - 5, label, "soft"),
        ]
    return parts


def _figure(caption: Caption, height: float, parts: Sequence[Safe], style: str = "chart") -> Safe:
    title, description = f"{caption.key}-title", f"{caption.key}-desc"
    return el(
        "svg",
        el("title", caption.title, id=title),
        el("desc", caption.description, id=description),
        join(*parts),
        class_=style,
        role="img",
        width="100%",
        height=height,
        aria_labelledby=f"{title} {description}",
    )
