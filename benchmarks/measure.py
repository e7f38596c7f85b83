"""How everything here is measured: CPU seconds, alternating rounds, peaks of fresh processes.

A shared machine makes wall time meaningless, so times are CPU seconds of one thread; frequencies and
caches drift, so alternatives take turns within each round and only ratios within a round are compared.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT = REPOSITORY / "outputs" / "benchmarks"

_MALLOC = {
    # Blocks of a mebibyte and more go back to the system when freed, so that the high-water mark
    # counts live tensors and not what the allocator keeps for later.
    "MALLOC_MMAP_THRESHOLD_": str(2**20),
    "MALLOC_TRIM_THRESHOLD_": str(2**20),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The median of some repetitions with their extremes."""

    median: float
    lowest: float
    highest: float
    repetitions: int


def spread(values: Sequence[float]) -> Spread:
    """Summarises repetitions.

    Raises:
        ValueError: there is none.
    """
    if not values:
        raise ValueError("a spread needs at least one repetition; set --repetitions above 0")
    return Spread(
        median=statistics.median(values),
        lowest=min(values),
        highest=max(values),
        repetitions=len(values),
    )


def ratios(slow: Sequence[float], fast: Sequence[float]) -> Spread:
    """slow / fast, round by round: both numbers of a quotient come from the same round."""
    return spread([a / b for a, b in zip(slow, fast, strict=True)])


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time this thread spends in `call`; what other processes do does not count."""
    started = time.thread_time()
    call()
    return time.thread_time() - started


def take_turns(
    contestants: Mapping[str, Callable[[], float]], *, repetitions: int, warm_ups: int
) -> dict[str, list[float]]:
    """Seconds of each contestant per round; a contestant measures itself and returns seconds.

    Every second round runs backwards (A B, B A, ...), so a machine that slows down steadily favours
    nobody. Warm-up rounds run first and are thrown away.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for round_index in range(-warm_ups, repetitions):
        names = list(contestants)
        for name in names if round_index % 2 == 0 else reversed(names):
            measured = contestants[name]()
            if round_index >= 0:
                seconds[name].append(measured)
    return seconds


def matmul_flops_per_second(*, size: int = 1024, repetitions: int = 7) -> float:
    """What this thread reaches in a large float32 matrix product: the peak that MFU divides by."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    out = torch.empty(size, size)
    fastest = min(cpu_seconds(lambda: torch.mm(left, right, out=out)) for _ in range(repetitions))
    return 2 * size**3 / fastest


class PeakMemory:
    """Resident memory of this process above what it held when the block was entered, in bytes.

    Use it in a fresh process (`in_fresh_process`): an old one has free memory to reuse, which hides
    what is needed. Needs /proc (Linux).
    """

    def __enter__(self) -> "PeakMemory":
        # 5 resets the high-water mark to what is resident now (proc(5), clear_refs).
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        self._before = _status_bytes("VmRSS")
        self.bytes = 0
        return self

    def __exit__(self, *exception: object) -> None:
        self.bytes = _status_bytes("VmHWM") - self._before


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


def in_fresh_process(module: str, arguments: Sequence[str]) -> dict[str, Any]:
    """What `python -m module *arguments` prints as JSON on its last line.

    Raises:
        RuntimeError: the process failed; carries the end of what it said.
    """
    finished = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **_MALLOC},
        capture_output=True,
        text=True,
    )
    if finished.returncode != 0:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{finished.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    return answer


def environment() -> dict[str, object]:
    """What a number depends on besides the code: commit, versions, device, threads."""
    return {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git("status", "--porcelain", "--", "papo", "benchmarks")),
        "device": _device(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "transformers", "lightning", "papo")},
        },
    }


def _git(*arguments: str) -> str:
    try:
        finished = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return finished.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
