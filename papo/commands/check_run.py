"""Prints what each term of the objective did to the policy of a run, and what could do nothing.

    papo check run RUN

RUN is the folder of a run of train.py: finished, failed or still running. Per term, at the first, the median and the last
measure: norms of its gradient, its cosine with the surrogate's, tokens at a clamp, what 1 % of the tokens have of it, and a
verdict (docs/term_gradients.md). Exits with 1 where a term, a view or a credit could do nothing, with 2 where nothing
was measured.
"""

import argparse
import csv
import json
import sys
from pathlib import Path
from textwrap import wrap

from papo.statistics import TERM_RULE, TermGradient, first_median_last, judge_terms

FAULTS = "faults.jsonl"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of a training run")
    run = parser.parse_args().run
    try:
        curves, faults = read_curves(run / "metrics.csv"), read_faults(run / FAULTS)
        terms = judge_terms(curves)
        if not terms:
            raise ValueError(
                f"{run} has no measured gradients (columns gradient/*): it was trained with "
                "callbacks.term_gradients.every_updates=0, with trainer=sharded, or before there were any"
            )
    except (OSError, ValueError) as error:
        print(f"check_run: {error}", file=sys.stderr)
        return 2
    for line in (*_lines(terms, curves), *wrap(TERM_RULE, 100), *faults):
        print(line)
    return 1 if faults or any(term.does_nothing for term in terms) else 0


def read_curves(path: Path) -> dict[str, list[float]]:
    """Returns the columns of metrics.csv.

    Raises:
        OSError: there is none.
        ValueError: it holds something else than numbers.
    """
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    try:
        # A run that is being written may have half a row.
        whole = [[float(cell) for cell in row] for row in rows if len(row) == len(header)]
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return {name: [row[place] for row in whole] for place, name in enumerate(header)}


def read_faults(path: Path) -> list[str]:
    """Returns a line for each fault that the run found; none where it found none.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.exists():
        return []
    try:
        found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return [f"rollout {one['rollout_step']}: {one['key']}: {one['says']}." for one in found]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _lines(terms: list[TermGradient], curves: dict[str, list[float]]) -> list[str]:
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
