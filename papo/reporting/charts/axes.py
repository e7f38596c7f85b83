"""What all charts share: the axis with its ticks, the elements of SVG, and the figure around a drawing.

Widths are per cent and texts are pixels: a drawing fills whatever room the page has, on a phone and on a wide
screen, and its text keeps its size. Colours are the page's, so that charts follow its light and dark mode.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from papo.reporting.html import Markup, join, render
from papo.reporting.numbers import finite

Number = int | float
Range = tuple[Number, Number]

Scale = Literal["linear", "log", "auto"]
"""`auto` is a log axis where a spike would flatten the rest."""

SPIKE = 20.0
"""Times the lower quartile: from here on `auto` is logarithmic."""

_LOWEST, _HIGHEST = -1e300, 1e300  # so that differences are finite numbers too
_DECADES = 6
_STEPS = (1.0, 2.0, 5.0, 10.0)
_LETTER = 6.6  # pixels, mean width of a letter of the text of a chart
_BESIDE = 2  # charts of a file in one row


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """From the lowest to the highest value that is drawn.

    Attributes:
        low, high: its ends, finite, low < high; above 0 where it is logarithmic.
        is_log: whether it is.
        is_percent: whether shares are written as per cent.
    """

    low: Number
    high: Number
    is_log: bool = False
    is_percent: bool = False

    @classmethod
    def around(
        cls, values: Iterable[Number], *, scale: Scale = "linear", is_percent: bool = False
    ) -> "Axis":
        """Returns the axis of values: zero is on a linear one, and it has some height where all are equal.

        On a log axis what is not positive, or six decades below the highest, lies at the lower end.
        """
        known = [min(max(value, _LOWEST), _HIGHEST) for value in finite(values)]
        positive = [value for value in known if value > 0]
        if scale == "auto":
            spiked = (
                positive
                and min(known) >= 0
                and max(positive) > SPIKE * sorted(positive)[len(positive) // 4]
            )
            scale = "log" if spiked else "linear"
        if scale == "log" and positive:
            low = max(min(positive), max(positive) / 10**_DECADES, 1e-290)
            low, high = _round_number(low, up=False), _round_number(max(*positive, low), up=True)
            if low == high:
                low, high = low / 10, high * 10
            return cls(low=low, high=high, is_log=True, is_percent=is_percent)
        low, high = min([0.0, *known]), max([0.0, *known])
        if high - low < 1e-300:
            high = low + 1.0
        return cls(low=low, high=high, is_percent=is_percent)

    def share(self, value: Number) -> float:
        """Returns where a value lies, from 0 at the lower end to 1; values beyond lie at the ends."""
        value = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Returns two to seven round numbers from end to end."""
        if not self.is_log:
            return round_numbers(self.low, self.high)
        first, last = (math.log10(end) for end in (self.low, self.high))
        if last - first < 1.5:
            powers = range(math.floor(first), math.ceil(last) + 1)
            fine = [step * 10.0**power for power in powers for step in _STEPS[:3]]
            return [tick for tick in fine if self.low * 0.999 <= tick <= self.high * 1.001]
        every = math.ceil((last - first) / 5)
        return [
            10.0**power
            for power in range(math.ceil(first - 1e-9), math.floor(last + 1e-9) + 1, every)
        ]

    def text(self, value: Number) -> str:
        """Returns a value as the axis and the hover texts write it."""
        return f"{100 * value:.3g} %" if self.is_percent else plain(value)


def plain(value: Number) -> str:
    """Returns a number of three digits, without an exponent where it is short enough."""
    if not math.isfinite(value):
        return "not finite"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def round_numbers(low: Number, high: Number) -> list[float]:
    """Returns two to six round numbers within a range."""
    rough = high / 4 - low / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def _round_number(value: float, *, up: bool) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    candidates = [step * power for step in _STEPS]
    if up:
        return next(one for one in candidates if one >= value * 0.999)
    return next(one for one in reversed(candidates) if one <= value * 1.001)


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """Returns an element of SVG; in names of attributes `_` stands for `-`, and `class_` for class."""
    named = join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value not in ("", None)
    )
    inside = join(children)
    return (Markup("<{0}{1}>{2}</{0}>") if inside else Markup("<{0}{1}/>")).format(
        Markup(name), named, inside
    )


def filled_swatch(colour: int) -> Markup:
    """Returns the patch of a legend that stands for an area or a segment; the colour is 1 to 7."""
    return element("rect", width=30, height=12, style=f"fill:var(--series-{colour})")


def percent(share: Number) -> str:
    """Returns a share of the width as SVG writes it."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".") + "%"


def room_for(texts: Iterable[str], most: int = 150) -> int:
    """Returns the pixels that the longest of some texts needs, at most so many."""
    return min(most, round(20 + _LETTER * max(map(len, texts), default=0)))


def fitting(text: str, pixels: int) -> str:
    """Returns a text, cut in its middle where it is longer than some pixels."""
    letters = int((pixels - 16) / _LETTER)
    return text if len(text) <= letters else f"{text[: letters // 2]}…{text[-(letters // 2 - 1) :]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing that stands on a page as a figure, or alone as a file.

    Attributes:
        title: what is drawn, unit included.
        spoken: the same as text, with its numbers.
        drawing: elements; x in per cent, y in pixels from the top.
        height: of the drawing, pixels.
        margins: left, right, top, bottom; pixels that texts beside the drawing need.
        legend: a swatch (SVG of 30 x 12) and a name each.
        note: what a reader must know of the axes.
    """

    title: str
    spoken: str
    drawing: Markup
    height: int
    margins: tuple[int, int, int, int]
    legend: Sequence[tuple[Markup, str]] = ()
    note: str = ""

    def __html__(self) -> str:
        return render("chart.html", chart=self)


def as_file(charts: Sequence[Chart], *, width: int = 420) -> str:
    """Returns charts as one SVG file, two beside each other, which has colours of its own.

    More would be scaled down to where a page has room, and their letters with them.

    Args:
        charts: at least one.
        width: of each, pixels, texts beside the drawing included.
    """
    title_height, row, gap = 24, 18, 16
    columns = min(_BESIDE, len(charts))
    height = max(
        title_height + sum(chart.margins[2:]) + chart.height + row * len(chart.legend)
        for chart in charts
    )
    parts = []
    for number, chart in enumerate(charts):
        left, right, top, bottom = chart.margins
        below = title_height + top + chart.height + bottom
        legend = [
            element(
                "g",
                element("svg", swatch, x=0, y=below + row * place, width=30, height=12),
                element("text", name, x=36, y=below + row * place + 10),
            )
            for place, (swatch, name) in enumerate(chart.legend)
        ]
        parts.append(
            element(
                "svg",
                element("text", fitting(chart.title, width), x=0, y=14, class_="title"),
                element(
                    "svg",
                    chart.drawing,
                    x=left,
                    y=title_height + top,
                    width=width - left - right,
                    height=chart.height,
                    class_="plot",
                ),
                *legend,
                class_="plot",
                x=number % columns * (width + gap),
                y=number // columns * (height + gap),
                width=width,
                height=height,
            )
        )
    return str(
        element(
            "svg",
            element("style", Markup(_alone_style())),
            *parts,
            xmlns="http://www.w3.org/2000/svg",
            width=columns * (width + gap) - gap,
            height=math.ceil(len(charts) / columns) * (height + gap) - gap,
            class_="plot",
            role="img",
            aria_label="; ".join(chart.spoken for chart in charts),
        )
    )


@cache
def _alone_style() -> str:
    """The colours of a page and the style of charts, for a drawing that stands on no page."""
    folder = Path(__file__).parents[1]
    return (folder / "colours.css").read_text("utf-8") + (folder / "charts.css").read_text("utf-8")
