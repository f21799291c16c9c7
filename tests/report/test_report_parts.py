"""The parts of the report: words in both languages, numbers, intervals, scales, markup and
colours.
"""

from __future__ import annotations

import math
import re
import string
from importlib.resources import files
from pathlib import Path

import pytest
from pages import LANGS

from tequio.core.texts.words import TEXTS, Words
from tequio.report.data.records import wilson
from tequio.report.format import Numbers, finite
from tequio.report.html.charts import scale
from tequio.report.html.markup import Safe, el


def test_articles_are_contracted_in_spanish() -> None:
    base = Words("es")("versus.base")
    assert Words("es")("key.who.note", versus=base).startswith("frente al modelo base")
    said = Words("es")(
        "head.here", relative="menor", versus=base, measure="exactitud", before="1 %", after="2 %"
    )
    assert "que la del modelo base" in said


def test_every_key_is_there_twice_with_the_same_placeholders() -> None:
    assert len(TEXTS["en"]) > 200
    assert list(TEXTS["en"]) == list(TEXTS["es"]), "the same keys in the same order"
    for key in TEXTS["en"]:
        texts = [TEXTS[lang][key] for lang in LANGS]
        fields = [
            {(f, form) for _, f, form, _ in string.Formatter().parse(text) if f} for text in texts
        ]
        assert fields[0] == fields[1], key
        assert all(text.strip(" ") == text != "" for text in texts), key


def test_no_key_is_left_unused() -> None:
    source = "".join(
        f.read_text(encoding="utf-8") for f in Path(str(files("tequio"))).rglob("*.py")
    )
    literal = set(re.findall(r'"([a-z]+(?:\.[a-z_]+)*)"', source))
    literal |= set(re.findall(r"'([a-z]+(?:\.[a-z_]+)+)'", source))
    starts = tuple(
        set(re.findall(r'f"([a-z]+(?:\.[a-z]+)*\.)\{', source))
        | set(re.findall(r"f'([a-z.]+\.)\{", source))
    )
    groups = tuple(f"{g}." for g in re.findall(r'\.name\("([a-z.]+)"', source))
    groups += tuple(
        f"{g}."
        for text in TEXTS["en"].values()
        for g in re.findall(r"\{\w+:([a-z][a-z.]+)\}", text)
    )
    literal |= {f"reason.{code}" for code in re.findall(r'"([a-z]+(?:-[a-z]+)*)"', source)}
    literal |= set(re.findall(r"\{\w+:(row\.[a-z]+)\}", "".join(TEXTS["en"].values())))
    forms = tuple(f"{g}." for g in re.findall(r'plural\(\s*"([a-z.]+)"', source))
    unused = [
        k for k in TEXTS["en"] if k not in literal and not k.startswith((*starts, *groups, *forms))
    ]
    assert unused == []


def test_numbers_in_each_language() -> None:
    en, es = Numbers("en"), Numbers("es")
    assert en.fixed(1234567.891, 2) == "1,234,567.89"
    assert es.fixed(1234567.891, 2) == "1\u202f234\u202f567.89"
    assert es.fixed(1234) == "1234"
    assert (en.percent(0.1234), es.percent(0.1234)) == ("12.3%", "12.3\u202f%")
    assert (en.signed(-0.04), en.signed(0.06), en.signed(-1.25, 2)) == ("0.0", "+0.1", "−1.25")
    assert en.bound(-0.04) == "−0.04"
    assert (en.size(999), en.size(36_864), en.size(12_700_000)) == (
        "999\u00a0B",
        "36.9\u00a0kB",
        "12.7\u00a0MB",
    )
    assert (en.energy(10), en.energy(3600), en.energy(3.6e6)) == (
        "2.78\u00a0mWh",
        "1.00\u00a0Wh",
        "1.00\u00a0kWh",
    )
    assert (en.mass(0.02), en.mass(0.00004)) == ("20.0\u00a0mg", "0.040\u00a0mg")
    assert en.duration(4320) == "1\u00a0h 12\u00a0min"
    assert en.duration(59.9) == "1\u00a0min"
    assert es.date("2026-11-24T10:15:00+00:00") == "24 de noviembre de 2026, 10:15\u00a0UTC"
    assert en.date("2026-11-24T04:15:00-06:00") == "24 November 2026, 10:15\u00a0UTC"
    assert en.fixed(math.nan) == en.percent(None) == en.energy(math.inf) == "–"
    assert finite(True) is None


def test_wilson_interval_of_8_in_10() -> None:
    """0.8 of 10: 0.4902 to 0.9433 (Wilson 1927; the same as R's prop.test without correction)."""
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(1.0, 5)[1] == 1.0
    assert wilson(0.5, 0) == (None, None)


def test_scale_has_round_ticks_around_all_values() -> None:
    found = scale([-0.036, 0.274], zero=True)
    assert found.ticks == (-0.1, 0.0, 0.1, 0.2, 0.3)
    assert found.at(-5.0) == found.left
    assert scale([0.5, 0.5]).low < 0.5 < scale([0.5, 0.5]).high


def test_markup_escapes_unless_safe() -> None:
    assert el("p", "<b>", Safe("<i>"), title='"&') == '<p title="&quot;&amp;">&lt;b&gt;<i></p>'


def test_text_colours_have_contrast_of_4_5() -> None:
    """WCAG 2.2:

    (L₁ + 0.05) / (L₂ + 0.05) ≥ 4.5 for ink, soft, gain and lose on paper and card, light and dark.
    """
    css = files("tequio.report.html").joinpath("style.css").read_text(encoding="utf-8")
    themes = re.findall(r":root \{(.*?)\}", css, re.S)
    assert len(themes) == 3
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", theme))
        for surface in ("paper", "card"):
            for ink in ("ink", "soft", "gain", "lose", "open"):
                pair = sorted((luminance(colours[surface]), luminance(colours[ink])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (surface, ink)


def luminance(colour: str) -> float:
    """Relative luminance of #rgb or #rrggbb (WCAG)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
