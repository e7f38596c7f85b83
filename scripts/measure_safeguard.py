"""Measures the detector of collapses on recorded runs: python scripts/measure_safeguard.py RUNS [RUNS ...]

RUNS are folders of sweeps (FOLDER/ARM/seed_N) with validation.every_rollouts. Every finished run is judged by its whole
(papo.statistics.COLLAPSE_RULE) and replayed through the detector of conf/safeguard; docs/results/lab_safeguard.md has the
rules, and what the tables show; --page FILE puts the tables below its headings of the same names. Nothing but files is read.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from statistics import median, quantiles

# A clone that is not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from papo.commands.check_run import shipped_detector
from papo.reporting.markdown_text import markdown_table, replaced_table
from papo.statistics import LOST_FORM, PERCEPTION_KL, Collapse, judge_collapse, wilson_interval
from papo.storage.files import write_atomically
from papo.storage.tables import read_numbers

VALIDATION = "validation/training_prior/accuracy"
POINTS = (0.02, 0.05, 0.1)
LIMITS = (2, 4, 6, 8, 10, 12.5, 15, 20, 30)
REMEDY = "Restore it, or move the run's folder away."


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A run.

    Attributes:
        regime: the folder of its sweep.
        arm, seed: where its folder lies in that.
        found: the verdict on the whole run.
        statistics: of the detector, one per rollout.
        validations: rollout, counted from 1 -> held-out accuracy.
    """

    regime: str
    arm: str
    seed: int
    found: Collapse
    statistics: Sequence[float]
    validations: Mapping[int, float]

    @property
    def kind(self) -> str:
        """What the run is counted as."""
        if self.found:
            runaway = (self.found.perception_kl or 0.0) > PERCEPTION_KL
            return "collapsed, KL runs away" if runaway else "collapsed, form breaks"
        return "sound, lost form" if self.found.lost_form > LOST_FORM else "sound"

    def alarm(self, limit: float) -> int | None:
        """The first rollout whose statistic is above the limit, counted from 1."""
        above = (place for place, one in enumerate(self.statistics, 1) if one > limit)
        return next(above, None)

    def lost(self, points: float) -> int | None:
        """The rollout of the first validation that lies `points` below the best before it, as does the next, if any."""
        best = accumulate(self.validations.values(), max)
        below = [
            highest - one > points - 1e-9
            for highest, one in zip(best, self.validations.values(), strict=True)
        ]
        lasting = zip(self.validations, below, [*below[1:], True], strict=False)
        return next((rollout for rollout, this, following in lasting if this and following), None)

    def lead(self, limit: float, points: float) -> int | None:
        """Rollouts from the alarm to the validation that shows the loss; None without one of them."""
        alarm, lost = self.alarm(limit), self.lost(points)
        return None if alarm is None or lost is None else lost - alarm


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="RUNS")
    parser.add_argument("--first-seed", type=int, default=0, help="leaves out the seeds below")
    parser.add_argument("--limit", type=float, help="in place of the configured one")
    parser.add_argument("--page", type=Path, help="of Markdown, whose tables are replaced")
    arguments = parser.parse_args()
    limit = arguments.limit or shipped_detector().limit
    try:
        runs = [run for folder in arguments.folders for run in measured(folder)]
        runs = [run for run in runs if run.seed >= arguments.first_seed]
        if not runs:
            raise ValueError("no finished run below these folders, of these seeds")
        tables = {
            "Kinds of runs": by(runs, limit, lambda run: run.kind),
            "Arms": by(runs, limit, lambda run: f"{run.regime}: {run.arm}"),
            "Limits": frontier(runs),
            "Exceptions": exceptions(runs, limit),
        }
        if arguments.page:
            text = arguments.page.read_text("utf-8")
            for title, table in tables.items():
                text = replaced_table(text, title, table)
            write_atomically(arguments.page, text)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for title, table in tables.items():
        print(f"### {title}\n\n{table}\n")
    return 0


def measured(folder: Path) -> Iterable[Measured]:
    """Replays the finished runs below a folder of a sweep."""
    for result in sorted(folder.glob("*/seed_*/result.json")):
        curves = read_numbers(result.parent / "metrics.csv", remedy=REMEDY)
        detector = shipped_detector()
        statistics = []
        for row in zip(*curves.values(), strict=True):
            detector.update(dict(zip(curves, row, strict=True)))
            statistics.append(detector.statistic)
        held_out = enumerate(curves.get(VALIDATION, ()), 1)
        yield Measured(
            regime=folder.name,
            arm=result.parents[1].name,
            seed=int(result.parent.name.removeprefix("seed_")),
            found=judge_collapse(curves),
            statistics=statistics,
            validations={rollout: one for rollout, one in held_out if one == one},
        )


def by(runs: Sequence[Measured], limit: float, name: Callable[[Measured], str]) -> str:
    """A row per group of runs: what the rule says, alarms, and how early."""
    rows = []
    for group in sorted({name(run) for run in runs}):
        chosen = [run for run in runs if name(run) == group]
        collapsed = [run for run in chosen if run.found]
        sound = [run for run in chosen if not run.found]
        rows.append(
            [
                group,
                share(run.alarm(limit) is not None for run in sound),
                share(run.alarm(limit) is not None for run in collapsed),
                *(in_time(collapsed, limit, points) for points in POINTS),
                quartiles(
                    [lead for run in collapsed if (lead := run.lead(limit, POINTS[0])) is not None]
                ),
            ]
        )
    columns = ["", "sound runs with an alarm", "collapses with one"]
    earlier = [f"before {100 * points:.0f} points were lost" for points in POINTS]
    return markdown_table([*columns, *earlier, "lead, rollouts"], rows, texts=1)


def frontier(runs: Sequence[Measured]) -> str:
    """A row per limit: false alarms against collapses caught, in per cent with Wilson intervals."""
    groups = {
        "alarms, sound": [run for run in runs if run.kind == "sound"],
        "alarms, sound or lost form": [run for run in runs if not run.found],
        "collapses with an alarm": [run for run in runs if run.found],
    }
    rows = []
    for limit in LIMITS:
        rang = [percent(run.alarm(limit) is not None for run in group) for group in groups.values()]
        collapsed = groups["collapses with an alarm"]
        rows.append(
            [
                f"limit {limit:g}",
                *rang,
                *(percent(early(collapsed, limit, points)) for points in POINTS),
            ]
        )
    earlier = [f"before {100 * points:.0f} points" for points in POINTS]
    return markdown_table(["", *groups, *earlier], rows, texts=1)


def exceptions(runs: Sequence[Measured], limit: float) -> str:
    """A row per run that the detector is wrong about."""
    rows = []
    for run in runs:
        alarm, lost = run.alarm(limit), run.lost(POINTS[0])
        late = run.found and lost is not None and (alarm is None or alarm >= lost)
        if late or (not run.found and alarm is not None):
            best, last = max(run.validations.values(), default=0), [*run.validations.values()][-1:]
            rows.append(
                [
                    f"{run.regime}: {run.arm}, seed {run.seed}",
                    run.kind,
                    "-" if alarm is None else str(alarm),
                    "-" if lost is None else str(lost),
                    f"{100 * run.found.lost_form:.0f}",
                    f"{100 * best:.0f}",
                    "".join(f"{100 * one:.0f}" for one in last),
                ]
            )
    columns = ["run", "kind", "alarm", "2 points lost", "most form lost, %", "best", "last"]
    return markdown_table(columns, rows, texts=2)


def early(collapsed: Sequence[Measured], limit: float, points: float) -> list[bool]:
    """Of the collapses that lost so much for good: whether the alarm came in an earlier rollout."""
    return [(run.lead(limit, points) or 0) > 0 for run in collapsed if run.lost(points) is not None]


def in_time(collapsed: Sequence[Measured], limit: float, points: float) -> str:
    return share(early(collapsed, limit, points))


def share(those: Iterable[bool]) -> str:
    """`3 of 40 (2 to 20 %)`, with Wilson's interval."""
    counted = list(those)
    if not counted:
        return "-"
    interval = wilson_interval(sum(counted), len(counted))
    return f"{sum(counted)} of {len(counted)} ({100 * interval.low:.1f} to {100 * interval.high:.1f} %)"


def percent(those: Iterable[bool]) -> str:
    counted = list(those)
    if not counted:
        return "-"
    interval = wilson_interval(sum(counted), len(counted))
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * sum(counted) / len(counted):.1f} [{low:.1f}, {high:.1f}]"


def quartiles(leads: Sequence[int]) -> str:
    """Median, and the quartiles."""
    if len(leads) < 2:
        return ", ".join(map(str, leads)) or "-"
    low, _, high = quantiles(leads, n=4, method="inclusive")
    return f"{median(leads):g} ({low:g} to {high:g})"


if __name__ == "__main__":
    sys.exit(main())
