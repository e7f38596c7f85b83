"""Says how far a method is from what its authors' functions compute: `papo check method FILE.json ...`.

A file holds cases of one method (docs/methods.md, "Checking a method"): inputs, settings and outputs. For each case
the worst error |a - b| / (1 + |b|) over all outputs is printed; the exit status is 1 where one is above the file's
tolerance, an output is not computed, or a file holds no such cases.
"""

import argparse
import importlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from papo.commands.method_cases import MODULES, NOT_CHECKED

MAX_BYTES = 100_000_000


class NoCasesError(ValueError):
    """A file that does not hold cases of a method."""


def main() -> int:
    """Checks the files; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    found: Counter[str] = Counter()
    for path in parser.parse_args().files:
        try:
            file = read(path)
        except (OSError, NoCasesError) as error:
            print(f"{path}: {' '.join(str(error).split())[:300]}")
            found["failed"] += 1
            continue
        found += report(file)
    failed, left_out = found["failed"], found["left out"]
    print(
        f"{found['computed']} cases; "
        + (f"{failed} of them or of the files failed" if failed else "none differs")
        + (f"; {left_out} more are of what is not offered" if left_out else "")
    )
    return 1 if failed else 0


def read(path: Path) -> dict[str, Any]:
    """Returns what a file of cases holds.

    Raises:
        OSError: it cannot be read.
        NoCasesError: it is not JSON, or lacks what a file of cases has; the message says what.
    """
    if path.stat().st_size > MAX_BYTES:
        raise NoCasesError(f"no file of cases: it has more than {MAX_BYTES:,} bytes")
    try:
        file = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise NoCasesError(f"no file of cases: it is not JSON ({error})") from error
    if not isinstance(file, dict):
        raise NoCasesError("no file of cases: it holds no mapping")
    for name, kind in {"method": str, "tolerance": int | float, "cases": list}.items():
        if not isinstance(file.get(name), kind):
            raise NoCasesError(f"no file of cases: {name!r} is missing, or of another kind")
    if not 0 <= file["tolerance"] < 1:
        raise NoCasesError(f"a tolerance is 0 to 1; got {file['tolerance']}")
    if file["method"] not in {**MODULES, **NOT_CHECKED}:
        raise NoCasesError(f"the method is one of {', '.join(MODULES)}; got {file['method']!r:.80}")
    if not file["cases"]:
        raise NoCasesError("no file of cases: it has no case")
    for number, case in enumerate(file["cases"]):
        for name in ("name", "config", "inputs", "outputs"):
            wanted = str if name == "name" else dict
            if not isinstance(case, dict) or not isinstance(case.get(name), wanted):
                raise NoCasesError(f"case {number}: {name!r} is missing, or of another kind")
        if not case["outputs"]:
            raise NoCasesError(f"case {number}: it has no output")
    return file


def report(file: Mapping[str, Any]) -> Counter[str]:
    """Prints a line per case of a file; returns how many were computed, failed and were left out."""
    method, tolerance = file["method"], float(file["tolerance"])
    if method in NOT_CHECKED:
        print(f"{method}: not offered ({NOT_CHECKED[method]})")
        return Counter({"left out": len(file["cases"])})
    module = importlib.import_module(f"papo.commands.method_cases.{MODULES[method]}")
    not_offered: Mapping[str, str] = getattr(module, "NOT_OFFERED", {})
    found: Counter[str] = Counter()
    for case in file["cases"]:
        label = (
            f"{method:12} {case['name']!s:.40}".ljust(54) + f"{case.get('reference', '')!s:12.12}"
        )
        reasons = [
            not_offered[of] for of in (str(case.get("kind")), case["name"]) if of in not_offered
        ]
        if reasons:
            print(f"{label} not offered ({reasons[0]})")
            found["left out"] += 1
            continue
        found["computed"] += 1
        try:
            worst, where = worst_error(module.outputs(case), case)
        except Exception as error:  # a case that cannot be computed has not passed
            print(f"{label} FAILED: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
            found["failed"] += 1
            continue
        differs = worst > tolerance
        found["failed"] += differs
        print(
            f"{label} {worst:.1e}"
            + (f" DIFFERS: {where} (at most {tolerance:g})" if differs else "")
        )
    return found


def worst_error(computed: Mapping[str, Any], case: Mapping[str, Any]) -> tuple[float, str]:
    """Returns the largest error over the outputs of a case, and which it is; infinite where one is not computed."""
    worst, where = 0.0, ""
    for name, wanted in case["outputs"].items():
        if name not in computed:
            return math.inf, f"{name} is not computed"
        found = error_of(
            *at_tokens(name, computed[name], wanted, case["inputs"].get("response_mask"))
        )
        if found > worst or not where:
            worst, where = found, name
    return worst, where


def at_tokens(name: str, computed: Any, wanted: Any, mask: Any) -> tuple[Any, Any]:
    """Both values at the response tokens: at padding only masks and gradients mean something."""
    import torch  # here, so that a typing error is answered at once

    if mask is None or name.startswith("grad_") or name.endswith("_mask"):
        return computed, wanted
    try:
        kept, theirs = torch.tensor(mask).bool(), torch.tensor(wanted, dtype=torch.float64)
    except (TypeError, ValueError):
        return computed, wanted
    if not isinstance(computed, torch.Tensor) or not kept.shape == theirs.shape == computed.shape:
        return computed, wanted
    return computed[kept], theirs[kept]


def error_of(computed: Any, wanted: Any) -> float:
    """The largest |a - b| / (1 + |b|); infinite where something is missing, NaN, or of another shape."""
    if wanted is None or computed is None:
        return 0.0 if wanted is computed else math.inf
    if isinstance(wanted, str):
        return 0.0 if computed == wanted else math.inf
    ours, theirs = list(_numbers(computed)), list(_numbers(wanted))
    if len(ours) != len(theirs):
        return math.inf
    errors = (abs(a - b) / (1 + abs(b)) for a, b in zip(ours, theirs, strict=True))
    return max((error if error == error else math.inf for error in errors), default=0.0)


def _numbers(value: Any) -> Iterator[float]:
    if hasattr(value, "tolist"):  # a tensor
        value = value.tolist()
    if isinstance(value, Mapping):
        value = [value[name] for name in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _numbers(item)
    elif value is not None:
        yield float(value)
