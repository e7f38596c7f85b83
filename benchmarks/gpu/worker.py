"""The inside of the process that answers: one cell after another, every answer a line on standard output."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TextIO

Answer = dict[str, Any]


class Tidied(Protocol):
    """What cells share."""

    def tidy(self) -> None:
        """Frees what the last cell left; raises where the device is lost."""
        ...


Cells = Mapping[str, Callable[[Any], Iterator[Answer]]]


def serve(cells: Cells, names: Sequence[str], setting: Tidied, answers: TextIO) -> None:
    """Answers the cells in order; one that raises is a line with the reason.

    Raises:
        Exception: the device is lost: whoever watches starts another process for the cells that are left.
    """

    def say(**line: Any) -> None:
        answers.write(json.dumps(line, default=str) + "\n")
        answers.flush()

    for name in names:
        say(cell=name, event="start")
        started = time.monotonic()
        try:
            for answer in cells[name](setting):
                say(cell=name, **rounded(answer))
        except Exception as error:
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            say(cell=name, failed=f"{type(error).__name__}: {lines[0][:300]}")
        # Out of the handler, whose exception holds the tensors of the frames that it passed.
        say(cell=name, event="end", seconds=round(time.monotonic() - started, 2))
        setting.tidy()


def rounded(value: Any) -> Any:
    """Numbers with six digits: a line is read by people too."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def own_stdout() -> TextIO:
    """Standard output for answers alone; whatever else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """`python -m benchmarks.gpu.worker SIZE EXPERIMENT CELL ...`"""
    answers = own_stdout()
    size, experiment, *names = sys.argv[1:]
    # Not above: they load torch and transformers, which whoever watches has no use for.
    from benchmarks.gpu.cells import cells_of
    from benchmarks.gpu.setting import Setting

    with Setting(experiment=experiment, is_toy=size == "toy") as setting:
        serve(cells_of(names), names, setting, answers)


if __name__ == "__main__":
    main()
