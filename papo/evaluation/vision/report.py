"""Writes down what the image is worth: vision_dependency.json, .md and .svg."""

from collections.abc import Iterator
from pathlib import Path

from papo.evaluation.vision.dependency import (
    BLIND_VIEWS,
    QUADRANTS,
    MaskCurve,
    Quadrants,
    SetDependency,
    ViewWorth,
    VisionDependency,
)
from papo.reporting.markdown_text import markdown_table
from papo.reporting.numbers import percent
from papo.storage.files import write_atomically, write_json

RULE = (
    "Accuracies are avg@k in per cent, over problems; intervals are 95 % and resample problems, those of "
    "a difference resample problems with both of their scores. A problem counts as solved where more "
    "than half of its k responses are right; a tie does not count."
)


def write_vision_dependency(dependency: VisionDependency, folder: Path) -> None:
    """Writes vision_dependency.json, .md and .svg into an evaluation's folder."""
    # Few evaluations draw.
    from papo.evaluation.vision.plot import draw_vision_dependency

    write_json(folder / "vision_dependency.json", dependency.to_dict())
    write_atomically(folder / "vision_dependency.md", vision_markdown(dependency))
    draw_vision_dependency(dependency, folder / "vision_dependency")


def vision_markdown(dependency: VisionDependency) -> str:
    """Returns the report as Markdown."""
    lines = ["# What the image is worth", "", RULE, ""]
    if dependency.not_run:
        lines += [f"Views that were not run: {', '.join(dependency.not_run)}.", ""]
    for one in dependency.sets:
        lines += _section(one)
    return "\n".join(lines)


def _section(one: SetDependency) -> Iterator[str]:
    yield f"## {one.benchmark}"
    yield ""
    yield (
        f"{one.num_problems} problems, k = {one.num_responses}; with the image "
        f"{percent(one.image_accuracy)}."
    )
    yield ""
    yield _table_of_views(one.views)
    yield ""
    if one.curve is not None:
        yield _curve_line(one.curve)
        yield ""
    yield from _table_of_quadrants(one.quadrants)


def _table_of_views(views: tuple[ViewWorth, ...]) -> str:
    columns = (
        "view",
        "problems",
        "left out",
        "accuracy",
        "image, same problems",
        "difference",
        "p",
    )
    rows = [
        (
            worth.view,
            str(worth.num_problems),
            str(worth.num_left_out),
            percent(worth.accuracy),
            percent(worth.image_accuracy),
            percent(worth.difference.interval, signed=True),
            f"{worth.difference.p_value:.2g}",
        )
        for worth in views
    ]
    return markdown_table(columns, rows, texts=1)


def _curve_line(curve: MaskCurve) -> str:
    points = ", ".join(
        f"{ratio:g}: {100 * accuracy.value:.1f}"
        for ratio, accuracy in zip(curve.ratios, curve.accuracies, strict=True)
    )
    text = f"Accuracy by the ratio hidden ({curve.num_problems} problems): {points}. "
    if curve.area is None:
        return text + "No area under the curve: masked_1.0 was not run."
    text += f"Area under the curve {percent(curve.area)}"
    if curve.retained is None:
        return text + "; nothing is right with the image, so nothing can be retained."
    return text + (
        f", that is {percent(curve.retained)} % of the accuracy with the image "
        "(100 where hiding changes nothing)."
    )


def _table_of_quadrants(quadrants: tuple[Quadrants, ...]) -> Iterator[str]:
    if not quadrants:
        yield f"No quadrants: neither {' nor '.join(BLIND_VIEWS)} was run."
        yield ""
        return
    rows = [
        [
            _MEANING[name],
            *(f"{percent(one.shares[name])} ({len(one.problem_ids[name])})" for one in quadrants),
        ]
        for name in QUADRANTS
    ]
    yield markdown_table(["solved", *(f"share, {one.view}" for one in quadrants)], rows, texts=1)
    yield ""


_MEANING = {
    "needs_image": "with the image alone (needs the image)",
    "shortcut": "with and without (shortcut)",
    "never": "neither way",
    "hurt_by_image": "without the image alone (hurt by it)",
}
