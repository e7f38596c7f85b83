"""Prints what each term of the objective did to the policy of a run, what could do nothing, and when a collapse began.

    papo check run RUN

RUN is the folder of a run of train.py: finished, failed or still running. Per term, at the first, the median and the last
measure: norms of its gradient, its cosine with the surrogate's, tokens at a clamp, what 1 % of the tokens have of it, and a
verdict (docs/term_gradients.md). The last line is what the detector of collapses (docs/results/lab_safeguard.md) would
have said while the run went on, by its shipped settings. Exits with 1 where a term, a view or a credit could do nothing, with 2 where nothing
was measured.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import yaml

from papo.commands.constructors import CONF
from papo.safeguard import CollapseDetector, replay
from papo.statistics import TERM_RULE, TermGradient, first_median_last, judge_terms
from papo.storage.tables import FAULTS, read_readable
from papo.storage.training_run import read_faults


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    run = parser.parse_args().run
    notes: list[str] = []
    curves = read_readable(run / "metrics.csv", notes)
    faults = read_faults(run / FAULTS, notes)
    terms = judge_terms(curves)
    for note in notes:
        print(f"check_run: {note}", file=sys.stderr)
    table = [*_lines(terms, curves), *wrap(TERM_RULE, 100)] if terms else []
    for line in (*table, *faults, *_alarm(curves)):
        print(line)
    if terms or faults:
        return 1 if faults or any(term.does_nothing for term in terms) else 0
    print(
        f"check_run: {run} has no measured gradients (columns gradient/* of metrics.csv): it is no folder of a "
        "training run, has finished no rollout, or was trained with callbacks.term_gradients.every_updates=0, with "
        "trainer=sharded, or before there were any",
        file=sys.stderr,
    )
    return 2


def shipped_detector() -> CollapseDetector:
    """Returns a new detector with the settings of conf/."""
    settings = yaml.safe_load((CONF / "safeguard/common/detector.yaml").read_text("utf-8"))
    return CollapseDetector(**{key: settings[key] for key in settings if key != "_target_"})


def _alarm(curves: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """A line on the first alarm; none where the run recorded nothing that the detector reads."""
    detector = shipped_detector()
    read = {column.removeprefix("-") for one in detector.signals.values() for column in one.columns}
    if not read & set(curves):
        return
    alarm = next((alarm for alarm in replay(detector, curves) if alarm), None)
    yield (
        f"collapse: no alarm in {detector.rollout} rollouts"
        if alarm is None
        else (
            f"collapse: alarm at rollout {alarm.rollout}, by {' and '.join(alarm.signals)} "
            f"({alarm.statistic:.3g}, limit {alarm.limit:g})"
        )
    )


def _lines(terms: list[TermGradient], curves: Mapping[str, Sequence[float]]) -> list[str]:
    measured = sum(value == value for value in terms[0].measures["norm"])
    lines = [f"{'term':16} {f'of {measured} measures':16}{'first':>10}{'median':>10}{'last':>10}"]
    for term in terms:
        lines += [
            _row(name, term.name if name == "norm" else "", term.summary(name))
            for name in term.measures
        ]
        lines.append(f"{'':16} {term.verdict}")
    return lines + [
        _row("preferred", name.removeprefix("policy/").removesuffix("_preferred_fraction"), summary)
        for name, values in curves.items()
        if name.endswith("_preferred_fraction") and (summary := first_median_last(values))
    ]


def _row(measure: str, term: str, values: tuple[float, float, float]) -> str:
    return f"{term:16} {measure:16}" + "".join(f"{value:10.3g}" for value in values)
