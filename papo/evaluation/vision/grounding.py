"""The row of an audit: how much of what a policy gets right it saw, per benchmark, from what was graded and scored."""

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from papo.evaluation.grounding_measures import MEASURES
from papo.evaluation.token_weights import TOP_SHARE, TokenWeight, carried_by_top, top_tokens
from papo.evaluation.vision.scored_views import BLANK, EVIDENCE, ViewDrops
from papo.statistics import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    paired_bootstrap,
    repeats_needed,
    t_interval,
)
from papo.types import IMAGE, ResponseRecord

Shares = Mapping[str, float]
"""The share of right responses by problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A number of the row with its 95 % interval over problems; no ends where one problem says nothing of it."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """One benchmark.

    Attributes:
        benchmark: its key.
        counts: by the names of `COUNTS`; None where nothing of the kind was measured.
        measures: those of `MEASURES` that could be measured, by name.
        tokens: of own responses, those that carry most of the perception KL.
        notes: what is missing, and why.
    """

    benchmark: str
    counts: Mapping[str, int | None]
    measures: Mapping[str, Measured]
    tokens: tuple[TokenWeight, ...]
    notes: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Returns the counts and numbers as columns; None where there is none."""
        columns: dict[str, Any] = dict(self.counts)
        for one in MEASURES:
            found = self.measures.get(one.name)
            ends = (None,) * 3 if found is None else (found.value, found.low, found.high)
            columns |= zip((one.name, f"{one.name}_low", f"{one.name}_high"), ends, strict=True)
        return columns


def measure_grounding(
    records: Iterable[ResponseRecord],
    lines: Iterable[ViewDrops],
    *,
    noise_floor: float | None,
    bootstrap_seed: int,
) -> tuple[Grounding, ...]:
    """Returns the numbers of every benchmark.

    Args:
        records: of the evaluation; read once.
        lines: what was scored of it.
        noise_floor: references that are less likely than this with the picture are left out of the margins, nats;
            None: none are.
        bootstrap_seed: of the intervals of shares.
    """
    hits: dict[str, dict[str, dict[str, list[bool]]]] = defaultdict(lambda: defaultdict(dict))
    right: dict[tuple[str, str, int], bool] = {}
    engines: dict[str, Counter[str | None]] = defaultdict(Counter)
    for record in records:
        engines[record.benchmark][record.engine] += 1
        hits[record.benchmark][record.view].setdefault(record.problem_id, []).append(record.correct)
        if record.view == IMAGE:
            key = (record.benchmark, record.problem_id, record.response_index)
            right[key] = record.correct
    scored: dict[str, list[ViewDrops]] = defaultdict(list)
    for line in lines:
        scored[line.benchmark].append(line)
    return tuple(
        _Benchmark(
            benchmark=benchmark,
            shares={
                view: {problem: statistics.fmean(row) for problem, row in rows.items()}
                for view, rows in views.items()
            },
            num_responses=len(next(iter(views[IMAGE].values()), ())),
            lines=scored[benchmark],
            right=right,
            engines=engines[benchmark],
            noise_floor=noise_floor,
            seed=bootstrap_seed,
        ).grounding()
        for benchmark, views in hits.items()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Benchmark:
    """What one benchmark's numbers are computed from."""

    benchmark: str
    shares: Mapping[str, Shares]
    num_responses: int
    lines: Sequence[ViewDrops]
    right: Mapping[tuple[str, str, int], bool]
    engines: Mapping[str | None, int]
    noise_floor: float | None
    seed: int

    def grounding(self) -> Grounding:
        found = {
            **self._accuracies(),
            **self._margins(),
            **self._own(),
            **self._evidence(),
        }
        own = [line for line in self.lines if line.kind == "own" and line.kl]
        return Grounding(
            benchmark=self.benchmark,
            counts=self._counts(),
            measures={name: one for name, one in found.items() if one is not None},
            tokens=top_tokens((line.tokens, line.kl) for line in own),
            notes=tuple(self._notes()),
        )

    def _accuracies(self) -> dict[str, Measured | None]:
        image = self.shares[IMAGE]
        found: dict[str, Measured | None] = {"accuracy": self._share([*image.values()])}
        for view in ("blank", "removed", "swapped"):
            own = self.shares.get(view, {})
            if own:
                found[f"accuracy_{view}"] = self._share([*own.values()])
                found[f"drop_{view}"] = self._difference(
                    [*own.values()], [image[problem] for problem in own]
                )
        blank = self.shares.get(BLANK, {})
        found["blind_correct"] = self._ratio(
            [image[problem] * share for problem, share in blank.items()],
            [image[problem] for problem in blank],
        )
        found.pop("drop_removed", None)
        return found

    def _margins(self) -> dict[str, Measured | None]:
        """Of the references that are likely enough with the picture for a difference to mean something."""
        known = [
            line
            for line in self.lines
            if line.kind == "reference"
            and (self.noise_floor is None or line.logprob > self.noise_floor)
        ]
        image = self.shares[IMAGE]
        blank = [line for line in known if BLANK in line.drops]
        return {
            "vdf": self._ratio(
                [image[line.problem_id] * (line.drops[BLANK] > 0) for line in blank],
                [image[line.problem_id] for line in blank],
            ),
            **{
                f"margin_{view}": _mean([[one.drops[view]] for one in known if view in one.drops])
                for view in ("blank", "swapped")
            },
        }

    def _own(self) -> dict[str, Measured | None]:
        """Of own responses against a black picture."""
        own = [line for line in self.lines if line.kind == "own" and line.kl]
        right = [
            line for line in own if self.right[self.benchmark, line.problem_id, line.response_index]
        ]
        carried = [
            (line.problem_id, share)
            for line in own
            if (share := carried_by_top(line.kl, TOP_SHARE)) is not None
        ]
        return {
            "own_likelier": self._share(
                _by_problem((one.problem_id, float(one.drops[BLANK] > 0)) for one in right)
            ),
            "perception_kl": _mean(
                _rows((line.problem_id, statistics.fmean(line.kl)) for line in own)
            ),
            "kl_top_fifth": self._share(_by_problem(carried)),
        }

    def _evidence(self) -> dict[str, Measured | None]:
        boxed = [line for line in self.lines if line.evidence_margin is not None]
        own = [line for line in boxed if line.kind == "own"]

        def margin(line: ViewDrops) -> float:
            assert line.evidence_margin is not None
            return line.evidence_margin

        return {
            "evidence_drop": _mean(_rows((one.problem_id, one.drops[EVIDENCE]) for one in own)),
            "control_drop": _mean(
                _rows((one.problem_id, statistics.fmean(one.controls)) for one in own)
            ),
            "evidence_margin": _mean(_rows((one.problem_id, margin(one)) for one in own)),
            "evidence_above": self._share(
                _by_problem((one.problem_id, float(margin(one) > 0)) for one in own)
            ),
            "reference_margin": _mean([[margin(one)] for one in boxed if one.kind == "reference"]),
        }

    def _counts(self) -> dict[str, int | None]:
        boxed = {line.problem_id: line for line in self.lines if line.evidence_margin is not None}
        no_control = {line.problem_id for line in self.lines if line.lacks_control}
        margins: dict[str, list[list[float]]] = defaultdict(list)
        for line in self.lines:
            if line.kind == "own" and line.evidence_margin is not None:
                margins[line.problem_id].append(
                    [line.drops[EVIDENCE] - one for one in line.controls]
                )
        # The mean over a problem's responses, control by control: the controls are what is repeated.
        repeats = [
            [statistics.fmean(c) for c in zip(*rows, strict=True)] for rows in margins.values()
        ]
        several = bool(repeats) and min(map(len, repeats)) > 1
        return {
            "num_problems": len(self.shares[IMAGE]),
            "num_responses": self.num_responses,
            "num_scored": len({line.problem_id for line in self.lines}),
            "num_unchanged": len(
                {line.problem_id for line in self.lines if BLANK not in line.drops}
            ),
            "num_boxed": len(boxed) or None,
            "num_no_control": len(no_control) or None,
            "num_controls": max((len(line.controls) for line in boxed.values()), default=None),
            "controls_needed": repeats_needed(repeats) if several else None,
        }

    def _notes(self) -> Iterable[str]:
        counts = self._counts()
        problems, num_scored = counts["num_problems"] or 0, counts["num_scored"] or 0
        if not self.lines:
            yield (
                "nothing could be scored: no problem has a picture, or none a response or reference to score; the "
                "columns of margins, perception KL and evidence are empty"
            )
        elif num_scored < problems:
            yield f"{num_scored} of {problems} problems were scored"
        for view in ("blank", "removed", "swapped"):
            missing = problems - len(self.shares.get(view, ()))
            if missing:
                yield (
                    f"{missing} of {problems} problems have no response in the view {view}: no picture, nothing left "
                    "to ask, no partner to swap with, or the view was not run"
                )
        if counts["num_unchanged"]:
            yield (
                f"{counts['num_unchanged']} problems look the same with a black picture: they are left out of the margins "
                "against it and of the perception KL"
            )
        boxed, no_control = counts["num_boxed"] or 0, counts["num_no_control"] or 0
        if no_control:
            yield (
                f"no control: of {boxed + no_control} scored problems that say where their evidence is, {no_control} have "
                "no room in their picture to hide as much elsewhere, and are left out of the columns of the evidence"
            )
        if self.lines and not boxed:
            yield (
                "no problem says where its evidence is (boxes in its one picture: docs/data.md) and has room for a "
                "control: the columns of the evidence are empty, not 0"
            )
        elif boxed + no_control < num_scored:
            yield (
                f"{boxed + no_control} of {num_scored} scored problems say where their evidence is; the columns of the "
                "evidence are of these"
            )
        references = [line for line in self.lines if line.kind == "reference"]
        quiet = [
            line
            for line in references
            if self.noise_floor is not None and line.logprob <= self.noise_floor
        ]
        if quiet:
            yield (
                f"{len(quiet)} of {len(references)} references are less likely than e^{self.noise_floor:g} with the picture "
                "(audit.noise_floor) and left out of the margins"
            )
        if self.lines and not references:
            yield "no reference was scored (audit.references): its margins are empty"
        if served := self.engines.get("server"):
            yield (
                f"a server wrote {served} of {sum(self.engines.values())} responses; the policy itself scored them"
            )
        if problems == 1:
            yield "one problem: no interval"

    def _share(self, shares: Sequence[float]) -> Measured | None:
        return _ends(shares, lambda: bootstrap_mean(shares, seed=self.seed))

    def _difference(self, first: Sequence[float], second: Sequence[float]) -> Measured | None:
        differences = [b - a for a, b in zip(first, second, strict=True)]
        return _ends(differences, lambda: paired_bootstrap(first, second, seed=self.seed).interval)

    def _ratio(self, tops: Sequence[float], bottoms: Sequence[float]) -> Measured | None:
        """Of shares of the same problems, the tops within the bottoms; None where nothing is right."""
        if not sum(bottoms) > 0:
            return None
        value = sum(tops) / sum(bottoms)
        if len(tops) == 1:
            return Measured(value=value, low=None, high=None)
        # A problem that is always right adds 0 or 1 to both: the extremes of a share of a share.
        found = bootstrap_ratio(tops, bottoms, seed=self.seed, extremes=((0.0, 1.0), (1.0, 1.0)))
        return _measured(found.within((0.0, 1.0)))


def _ends(values: Sequence[float], interval: Any) -> Measured | None:
    if not values:
        return None
    if len(values) == 1:
        return Measured(value=values[0], low=None, high=None)
    return _measured(interval())


def _measured(found: Interval) -> Measured:
    return Measured(value=found.value, low=found.low, high=found.high)


def _rows(values: Iterable[tuple[str, float]]) -> list[list[float]]:
    """The numbers of each problem's responses."""
    rows: dict[str, list[float]] = defaultdict(list)
    for problem, value in values:
        rows[problem].append(value)
    return [*rows.values()]


def _by_problem(values: Iterable[tuple[str, float]]) -> list[float]:
    """The mean over the responses to each problem."""
    return [*map(statistics.fmean, _rows(values))]


def _mean(rows: Sequence[Sequence[float]]) -> Measured | None:
    """Mean over problems of the mean over their responses, with Student's t interval over problems."""
    values = [*map(statistics.fmean, rows)]
    if not values:
        return None
    found = t_interval(values) if all(map(math.isfinite, values)) else None
    return Measured(
        value=statistics.fmean(values),
        low=None if found is None else found.low,
        high=None if found is None else found.high,
    )
