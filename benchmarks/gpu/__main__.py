"""The command line; `python -m benchmarks.gpu --help`."""

import argparse
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.budgets import MINUTES, SECONDS, TOY_PATIENCE, budgets
from benchmarks.gpu.runner import START_SECONDS, Plan, worker_command

REPOSITORY = Path(__file__).resolve().parents[2]
ANSWERS = Path("outputs/benchmarks/gpu/answers.jsonl")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # Shapes differ from cell to cell: without it the pieces of one do not fit the next.
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (("device", "on a GPU"), ("toy", "on a CPU, at toy size")):
        one = commands.add_parser(name, help=f"ask all cells {about}")
        one.add_argument("--experiment", default="papo_g_3b", help="a file of conf/experiment")
        one.add_argument("--answers", type=Path, default=ANSWERS, help="the file, appended to")
        one.add_argument("--only", nargs="+", choices=tuple(SECONDS), default=[])
        one.add_argument("--minutes", type=float, default=MINUTES)
        one.add_argument(
            "--variant",
            action="append",
            default=[],
            metavar="KEY=VALUE,KEY=VALUE",
            help="also a whole step with these settings; may be repeated",
        )
    prepare = commands.add_parser("prepare", help="collect wheels for the machine with the GPU")
    prepare.add_argument("--folder", type=Path, default=Path("wheels"))
    prepare.add_argument(
        "--present", type=Path, help="what is there already: its `pip list --format=freeze`"
    )
    report = commands.add_parser("report", help="write answers into docs/benchmarks.md")
    report.add_argument("answers", type=Path, nargs="?", help="none: that there are none")
    chosen = parser.parse_args(arguments)
    if chosen.command == "prepare":
        collect_wheels(chosen.folder, chosen.present)
    elif chosen.command == "report":
        # These load transformers, for which a plan that waits for its worker has no use.
        from benchmarks.gpu import report as section

        try:
            section.main(REPOSITORY / "docs" / "benchmarks.md", chosen.answers)
        except ValueError as error:
            parser.error(str(error))
    elif chosen.command == "device" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here; `toy` runs the same code on a CPU")
    else:
        ask(chosen)


def collect_wheels(folder: Path, present: Path | None) -> None:
    """Says what was collected and how it is used."""
    from benchmarks.gpu.wheels import collect, wanted

    there = [] if present is None else present.read_text("utf-8").splitlines()
    files = collect(folder, wanted(there))
    size = sum(file.stat().st_size for file in files) / 2**20
    print(
        f"{len(files)} wheels, {size:.0f} MiB, in {folder}. On the machine, beside this checkout:"
    )
    print(f"  python3 -m pip install --no-index --no-deps --target site {folder}/*.whl")
    print("  PYTHONPATH=site python3 -m benchmarks.gpu device")


def ask(chosen: argparse.Namespace) -> None:
    is_toy = chosen.command == "toy"
    Plan(
        budgets=budgets(is_toy=is_toy, variants=tuple(chosen.variant), only=tuple(chosen.only)),
        command=worker_command(chosen.command, chosen.experiment),
        answers=chosen.answers,
        seconds=60.0 * chosen.minutes,
        start_seconds=START_SECONDS * (TOY_PATIENCE if is_toy else 1),
        environment={**ENVIRONMENT, **({"OMP_NUM_THREADS": "1"} if is_toy else {})},
    ).run(commit=_commit(), size=chosen.command, experiment=chosen.experiment)


def _commit() -> str:
    """The commit, or unknown: a copy of the tree may be without its history."""
    try:
        finished = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True
        )
    except OSError:
        return "unknown"
    return finished.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
