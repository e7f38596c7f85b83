"""Evaluates the official objective on golden cases and prints the worst absolute error of each.

    papo check objective tests/golden/papo_objective.json

Composes conf/ with fidelity=official, so what is checked is what `python train.py` would train with.
Exits with 1 if any case differs by more than 1e-9, and on a key, field or value it does not understand; with
2 where there is no file of cases to read.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

SHIPPED = "tests/golden/papo_objective.json"
TOLERANCE = 1e-9


def read_cases(path: Path) -> list[Any]:
    """Returns the cases of a golden file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or holds no list of cases.
    """
    try:
        cases = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(cases, list) or not cases:
        raise ValueError(f"{path} holds no list of cases")
    return cases


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        help=f"golden cases, a JSON list; those of the authors' code are in {SHIPPED}",
    )
    path = parser.parse_args().file
    try:
        if path is None:
            raise ValueError("no file of golden cases was named")
        cases = read_cases(path)
    except (OSError, ValueError) as error:
        print(f"check_objective: {error}; the shipped cases are in {SHIPPED}", file=sys.stderr)
        return 2
    # Here, because they import torch.
    from hydra import initialize_config_dir

    from papo.commands.constructors import CONF
    from papo.commands.golden_objective import check_case

    failures = 0
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for number, case in enumerate(cases):
            label = f"{number:3d}"
            try:
                label += f" {case['name']} seed={case['seed']}"
                errors = check_case(case)
            except Exception as problem:  # a case that cannot be evaluated has not passed
                failures += 1
                print(f"FAIL {label}: {type(problem).__name__}: {problem}")
                continue
            worst = max(errors, key=lambda name: errors[name])
            passed = errors[worst] <= TOLERANCE
            failures += not passed
            print(f"{'ok  ' if passed else 'FAIL'} {label}: {errors[worst]:.1e} ({worst})")
    print(f"{len(cases) - failures} of {len(cases)} cases within {TOLERANCE:g}")
    return 1 if failures else 0
