"""Says how far a method is from what its authors' functions compute: `python scripts/check_method.py FILE.json ...`.

A file holds cases of one method (docs/methods.md, "Checking a method"): inputs, settings and outputs. For each case
the worst relative error |a - b| / (1 + |b|) over all outputs is printed; the exit status is 1 where one is above
the file's tolerance, or an output is not computed.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from method_cases import MODULES, NOT_CHECKED


def main() -> int:
    """Checks the files; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    failed = 0
    for file in parser.parse_args().files:
        try:
            cases = json.loads(file.read_text("utf-8"))
            failed += report(cases)
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"{file}: no file of cases ({type(error).__name__}: {error})")
            failed += 1
    print("every output is equal" if not failed else f"{failed} of the cases differ")
    return 1 if failed else 0


def report(file: Mapping[str, Any]) -> int:
    """Prints a line per case of a file; returns how many differ."""
    method, tolerance, failed = file["method"], float(file["tolerance"]), 0
    if method in NOT_CHECKED:
        print(f"{method}: not offered ({NOT_CHECKED[method]})")
        return 0
    if method not in MODULES:
        raise ValueError(f"the method is one of {', '.join(MODULES)}; got {method!r}")
    module = importlib.import_module(f"method_cases.{MODULES[method]}")
    for case in file["cases"]:
        with torch.random.fork_rng():
            computed = module.outputs(case)
        worst, where = max(
            (
                (error_of(computed.get(name), wanted), name)
                for name, wanted in case["outputs"].items()
            ),
            key=lambda each: each[0],
        )
        is_equal = worst <= tolerance
        failed += not is_equal
        print(
            f"{method:14} {case['name']:36} {case['reference']:11} {worst:.1e} "
            f"{'' if is_equal else f'DIFFERS in {where} (at most {tolerance:g})'}".rstrip()
        )
    return failed


def error_of(computed: Any, wanted: Any) -> float:
    """The worst relative error; infinite where something is missing, or of another shape.

    Raises:
        TypeError: a value that is no number, text or list of them.
    """
    if wanted is None:
        return 0.0 if computed is None else float("inf")
    if isinstance(wanted, str | Mapping):
        return 0.0 if computed == wanted else float("inf")
    ours, theirs = list(_numbers(computed)), list(_numbers(wanted))
    if len(ours) != len(theirs):
        return float("inf")
    errors = (
        abs(a - b) / (1 + abs(b)) if a == a else float("inf")
        for a, b in zip(ours, theirs, strict=True)
    )
    return max(errors, default=0.0)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _numbers(item)
    elif value is not None:
        yield float(value)


if __name__ == "__main__":
    sys.exit(main())
