"""What the image is worth: the same problems with the picture hidden, removed or another one.

Everything is computed from the graded responses of one evaluation, so it can be computed again from
responses.jsonl. Pictures of it are in plot.py, the text in report.py.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from papo.evaluation.scores import is_solved
from papo.statistics import (
    Difference,
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    paired_bootstrap,
    wilson_interval,
)
from papo.types import ResponseRecord
from papo.views import masked_ratio

KNOWN_VIEWS = (
    *("image", "blank", "removed", "swapped"),
    *("masked_0.2", "masked_0.4", "masked_0.6", "masked_0.8", "masked_1.0"),
)
"""What a whole report is made of (conf/views/vision.yaml)."""

BLIND_VIEWS = ("blank", "removed")
"""The views in which there is nothing to see."""

QUADRANTS = ("needs_image", "shortcut", "never", "hurt_by_image")

ALL = "all benchmarks"


Hits = Mapping[str, Sequence[bool]]
"""The verdicts on the responses to each problem, by its id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewWorth:
    """Accuracy in one view beside that of the same problems with their image.

    Attributes:
        view: its name.
        num_problems: shown in this view.
        num_left_out: problems of the plain view that have no response here: no picture to change, or
            no other item's to swap with.
        accuracy: avg@k in this view, over the problems shown in it.
        image_accuracy: avg@k of the same problems with their image.
        difference: this view minus image, paired by problem.
    """

    view: str
    num_problems: int
    num_left_out: int
    accuracy: Interval
    image_accuracy: float
    difference: Difference


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskCurve:
    """Accuracy over the ratio of the picture that is hidden, over the problems shown at every ratio.

    Attributes:
        num_problems: how many these are.
        ratios: 0 (the image itself) and those that were run, ascending.
        accuracies: avg@k at each ratio.
        area: under the curve by trapezoids, over ratios 0 to 1, so the mean accuracy over ratios; None
            where ratio 1 was not run.
        retained: area divided by the accuracy with the image: 1 where hiding changes nothing. None
            where there is no area, or no right response with the image.
    """

    num_problems: int
    ratios: tuple[float, ...]
    accuracies: tuple[Interval, ...]
    area: Interval | None
    retained: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quadrants:
    """Problems by whether they are solved with the image and without it.

    needs_image: with it alone; shortcut: both ways; never: neither way; hurt_by_image: without it
    alone. A problem counts as solved where more than half of its k responses are right; a tie does not.

    Attributes:
        view: what "without" means, one of `BLIND_VIEWS`.
        num_problems: shown in that view.
        shares: of each quadrant, Wilson interval.
        problem_ids: in each quadrant (of a pooled set: benchmark/id).
    """

    view: str
    num_problems: int
    shares: Mapping[str, Interval]
    problem_ids: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SetDependency:
    """What the image is worth on one benchmark, or on all of them pooled.

    Attributes:
        benchmark: its key, or `ALL`.
        num_problems: with responses in the plain view.
        num_responses: k.
        image_accuracy: avg@k with the image, over all problems.
        views: the other views, in the order in which they were run.
        blind_correct: share of responses that are right without seeing, by blind view.
        curve: None where no masked view was run.
        quadrants: one per blind view that was run.
    """

    benchmark: str
    num_problems: int
    num_responses: int
    image_accuracy: Interval
    views: tuple[ViewWorth, ...]
    blind_correct: Mapping[str, Interval]
    curve: MaskCurve | None
    quadrants: tuple[Quadrants, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionDependency:
    """The whole report.

    Attributes:
        sets: one per benchmark, and `ALL` of them pooled where there are several.
        not_run: views of `KNOWN_VIEWS` without a response.
    """

    sets: tuple[SetDependency, ...]
    not_run: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dicts and lists of plain values, ready for JSON."""
        return asdict(self)


def measure_vision_dependency(
    records: Iterable[ResponseRecord], *, bootstrap_seed: int
) -> VisionDependency:
    """Returns what the image is worth, per benchmark and pooled.

    Args:
        records: of one evaluation, the plain view among them; read once.
        bootstrap_seed: of the intervals.

    Raises:
        ValueError: there is no plain view to compare with.
    """
    by_set: dict[str, dict[str, dict[str, list[bool]]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        hits = by_set[record.benchmark][record.view]
        hits.setdefault(record.problem_id, []).append(record.correct)
    for benchmark, views in by_set.items():
        if "image" not in views:
            raise ValueError(
                "what the image is worth is a comparison with the plain view; got "
                f"{', '.join(views)} alone on {benchmark}. Choose views=vision or views=blind."
            )
    run = {view for views in by_set.values() for view in views}
    pooled = {ALL: _pool(by_set)} if len(by_set) > 1 else {}
    return VisionDependency(
        sets=tuple(
            _set_dependency(benchmark, views, bootstrap_seed)
            for benchmark, views in (by_set | pooled).items()
        ),
        not_run=tuple(view for view in KNOWN_VIEWS if view not in run),
    )


def _pool(by_set: Mapping[str, Mapping[str, Hits]]) -> dict[str, dict[str, Sequence[bool]]]:
    pooled: dict[str, dict[str, Sequence[bool]]] = defaultdict(dict)
    for benchmark, views in by_set.items():
        for view, hits in views.items():
            pooled[view].update({f"{benchmark}/{one}": row for one, row in hits.items()})
    return pooled


def _set_dependency(benchmark: str, views: Mapping[str, Hits], seed: int) -> SetDependency:
    image = views["image"]
    worths = tuple(
        _view_worth(view, image, hits, seed) for view, hits in views.items() if view != "image"
    )
    return SetDependency(
        benchmark=benchmark,
        num_problems=len(image),
        num_responses=len(next(iter(image.values()))),
        image_accuracy=bootstrap_mean([fmean(row) for row in image.values()], seed=seed),
        views=worths,
        blind_correct={one.view: one.accuracy for one in worths if one.view in BLIND_VIEWS},
        curve=_mask_curve(views, seed),
        quadrants=tuple(
            _quadrants(view, image, views[view]) for view in BLIND_VIEWS if view in views
        ),
    )


def _view_worth(view: str, image: Hits, hits: Hits, seed: int) -> ViewWorth:
    with_image = [fmean(image[problem]) for problem in hits]
    without = [fmean(row) for row in hits.values()]
    return ViewWorth(
        view=view,
        num_problems=len(hits),
        num_left_out=len(image) - len(hits),
        accuracy=bootstrap_mean(without, seed=seed),
        image_accuracy=sum(with_image) / len(with_image),
        difference=paired_bootstrap(with_image, without, seed=seed),
    )


def _mask_curve(views: Mapping[str, Hits], seed: int) -> MaskCurve | None:
    by_ratio = {ratio: views[view] for view in views if (ratio := masked_ratio(view)) is not None}
    if not by_ratio:
        return None
    by_ratio = dict(sorted({**by_ratio, 0.0: views["image"]}.items()))
    problems = [one for one in views["image"] if all(one in hits for hits in by_ratio.values())]
    if not problems:
        return None
    shares = {ratio: [fmean(hits[one]) for one in problems] for ratio, hits in by_ratio.items()}
    ratios = tuple(shares)
    area = retained = None
    if ratios[-1] == 1.0:
        areas = [_trapezoids(ratios, row) for row in zip(*shares.values(), strict=True)]
        area = bootstrap_mean(areas, seed=seed)
        if any(shares[0.0]):
            retained = bootstrap_ratio(areas, shares[0.0], seed=seed)
    return MaskCurve(
        num_problems=len(problems),
        ratios=ratios,
        accuracies=tuple(bootstrap_mean(row, seed=seed) for row in shares.values()),
        area=area,
        retained=retained,
    )


def _quadrants(view: str, image: Hits, hits: Hits) -> Quadrants:
    problem_ids: dict[str, list[str]] = {name: [] for name in QUADRANTS}
    for problem, row in hits.items():
        problem_ids[_quadrant(is_solved(image[problem]), is_solved(row))].append(problem)
    return Quadrants(
        view=view,
        num_problems=len(hits),
        shares={name: wilson_interval(len(ids), len(hits)) for name, ids in problem_ids.items()},
        problem_ids={name: tuple(ids) for name, ids in problem_ids.items()},
    )


def _quadrant(solved_with: bool, solved_without: bool) -> str:
    if solved_with:
        return "shortcut" if solved_without else "needs_image"
    return "hurt_by_image" if solved_without else "never"


def _trapezoids(ratios: Sequence[float], heights: Sequence[float]) -> float:
    return sum(
        (ratios[i + 1] - ratios[i]) * (heights[i] + heights[i + 1]) / 2
        for i in range(len(ratios) - 1)
    )
