"""Draws what the image is worth: accuracy over the hidden ratio, and the quadrants."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from papo.evaluation.vision.dependency import QUADRANTS, SetDependency, VisionDependency
from papo.statistics import Interval
from papo.views import masked_ratio

_COLOURS = {
    "needs_image": "#2a7f62",
    "shortcut": "#e0a030",
    "never": "#c8c8c8",
    "hurt_by_image": "#b0413e",
}
_LABELS = {
    "needs_image": "needs the image",
    "shortcut": "shortcut",
    "never": "never",
    "hurt_by_image": "hurt by the image",
}


def draw_vision_dependency(dependency: VisionDependency, path: Path) -> None:
    """Writes `path`.png and `path`.svg; the same report gives the same bytes."""
    sets = dependency.sets
    with matplotlib.rc_context({"svg.hashsalt": "papo", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(10.0, 3.4 + 0.22 * len(sets)), layout="constrained")
        accuracy, quadrants = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_accuracies(accuracy, sets)
        _draw_quadrants(quadrants, sets)
        figure.savefig(path.with_suffix(".png"), dpi=110, metadata={"Software": None})
        figure.savefig(path.with_suffix(".svg"), metadata={"Date": None, "Creator": None})


def _draw_accuracies(axes: Axes, sets: tuple[SetDependency, ...]) -> None:
    """A curve per set over the hidden ratio; beside it the views that have no ratio."""
    others = list(
        dict.fromkeys(
            worth.view for one in sets for worth in one.views if masked_ratio(worth.view) is None
        )
    )
    places = {view: 1.25 + 0.28 * index for index, view in enumerate(others)}
    for index, one in enumerate(sets):
        colour = f"C{index % 10}"
        shift = 0.012 * (index - (len(sets) - 1) / 2)
        points = [(0.0, one.image_accuracy)]
        if one.curve is not None:
            points = list(zip(one.curve.ratios, one.curve.accuracies, strict=True))
        _draw_points(axes, points, shift, colour, line="-", label=one.benchmark)
        apart = [(places[w.view], w.accuracy) for w in one.views if w.view in places]
        _draw_points(axes, apart, shift, colour, line="none", label=None)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    axes.set_xticks([*ticks, *places.values()], [*(f"{tick:g}" for tick in ticks), *others])
    if others:
        axes.axvline(1.1, color="0.85", linewidth=0.8)
    axes.set_ylim(0.0, 100.0)
    axes.set_xlabel("share of the picture hidden (0: the image itself)")
    axes.set_ylabel("accuracy, % (95 % intervals)")
    axes.set_title("Accuracy without the picture")
    axes.grid(axis="y", color="0.92")
    axes.legend(frameon=False, fontsize=8)


def _draw_points(
    axes: Axes,
    points: list[tuple[float, Interval]],
    shift: float,
    colour: str,
    *,
    line: str,
    label: str | None,
) -> None:
    if not points:
        return
    places = [place + shift for place, _ in points]
    values = [100 * interval.value for _, interval in points]
    below = [100 * (interval.value - interval.low) for _, interval in points]
    above = [100 * (interval.high - interval.value) for _, interval in points]
    axes.errorbar(
        places,
        values,
        yerr=[below, above],
        color=colour,
        linestyle=line,
        marker="o",
        markersize=4,
        capsize=2,
        linewidth=1.4,
        label=label,
    )


def _draw_quadrants(axes: Axes, sets: tuple[SetDependency, ...]) -> None:
    """A bar per set: the first blind view that was run."""
    shown = [(one.benchmark, one.quadrants[0]) for one in sets if one.quadrants]
    axes.set_title("Problems solved with and without it")
    if not shown:
        axes.text(0.5, 0.5, "no blind view was run", ha="center", va="center")
        axes.set_axis_off()
        return
    left = [0.0] * len(shown)
    for name in QUADRANTS:
        widths = [100 * quadrants.shares[name].value for _, quadrants in shown]
        bars = axes.barh(
            range(len(shown)), widths, left=left, color=_COLOURS[name], label=_LABELS[name]
        )
        axes.bar_label(
            bars,
            [f"{width:.0f}" if width >= 6 else "" for width in widths],
            label_type="center",
            fontsize=8,
        )
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(range(len(shown)), [f"{benchmark}\n({q.view})" for benchmark, q in shown])
    axes.invert_yaxis()
    axes.set_xlim(0.0, 100.0)
    axes.set_xlabel("share of problems, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
