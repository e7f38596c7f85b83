"""Draws what the image is worth: accuracy over the hidden ratio and in the other views, and the quadrants."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from papo.evaluation.vision.dependency import (
    QUADRANTS,
    SetDependency,
    VisionDependency,
    masked_ratio,
)
from papo.reporting.charts import (
    Chart,
    Dot,
    Row,
    Series,
    as_file,
    bar_chart,
    dot_chart,
    line_chart,
)
from papo.statistics import Interval
from papo.storage.files import write_atomically

_COLOURS = {"needs_image": 3, "shortcut": 5, "never": 6, "hurt_by_image": 7}
_LABELS = {
    "needs_image": "needs the image",
    "shortcut": "shortcut",
    "never": "never",
    "hurt_by_image": "hurt by the image",
}


def draw_vision_dependency(dependency: VisionDependency, path: Path) -> None:
    """Writes `path`.svg; the same report gives the same bytes."""
    write_atomically(path.with_suffix(".svg"), as_file(list(_charts(dependency.sets))))


def _charts(sets: Sequence[SetDependency]) -> Iterator[Chart]:
    if any(one.curve is not None for one in sets):
        yield _hidden_chart(sets)
    yield _view_chart(sets)
    if any(one.quadrants for one in sets):
        yield _quadrant_chart(sets)


def _hidden_chart(sets: Sequence[SetDependency]) -> Chart:
    """A line per set over the share of the picture that is hidden."""
    curves = {one.benchmark: one.curve for one in sets if one.curve is not None}
    ratios = sorted({ratio for curve in curves.values() for ratio in curve.ratios})
    lines = []
    for name, curve in curves.items():
        found = dict(zip(curve.ratios, curve.accuracies, strict=True))
        values, lows, highs = zip(
            *(
                (one.value, one.low, one.high) if (one := found.get(ratio)) else (math.nan,) * 3
                for ratio in ratios
            ),
            strict=True,
        )
        lines.append(Series(name=name, values=values, band=(lows, highs)))
    hidden = [round(100 * ratio) for ratio in ratios]
    title = "Accuracy by how much is hidden, 95 % intervals"
    return line_chart(title, hidden, lines, is_percent=True, top=1.0, along="% hidden")


def _view_chart(sets: Sequence[SetDependency]) -> Chart:
    """Views without a ratio, the image itself first."""
    found = {
        one.benchmark: {
            "image": one.image_accuracy,
            **{
                worth.view: worth.accuracy
                for worth in one.views
                if masked_ratio(worth.view) is None
            },
        }
        for one in sets
    }
    views = dict.fromkeys(view for accuracies in found.values() for view in accuracies)
    rows = [
        Row(
            name=view,
            dots=[
                _dot(accuracies[view]) if view in accuracies else None
                for accuracies in found.values()
            ],
        )
        for view in views
    ]
    return dot_chart(
        "Accuracy without the picture", rows, list(found), along="%, 95 % intervals", reach=(0, 100)
    )


def _dot(one: Interval) -> Dot:
    return Dot(value=100 * one.value, narrow=(100 * one.low, 100 * one.high))


def _quadrant_chart(sets: Sequence[SetDependency]) -> Chart:
    """A bar per set: the first blind view that was run."""
    rows = [
        (
            f"{one.benchmark} ({one.quadrants[0].view})",
            [100 * one.quadrants[0].shares[name].value for name in QUADRANTS],
        )
        for one in sets
        if one.quadrants
    ]
    segments = [(_LABELS[name], _COLOURS[name]) for name in QUADRANTS]
    return bar_chart(
        "Problems solved with and without it", rows, segments, along="% of the problems"
    )
