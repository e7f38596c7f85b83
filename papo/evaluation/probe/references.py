"""Fixed responses to score, so that two policies are compared on the same words."""

import json
from pathlib import Path

from papo.lab.grading import write_response
from papo.lab.scene import scene_numbers
from papo.types import Problem, shown


def boxed_answer(benchmark: str, problem: Problem) -> str:
    """Returns the reference answer in a box, the shortest response there is for any problem.

    The words of PerceptionLab stand apart: its tokenizer knows no other `\\boxed{`.
    """
    is_scene = scene_numbers(problem.truth) is not None
    return f"\\boxed{{ {problem.answer} }}" if is_scene else f"\\boxed{{{problem.answer}}}"


def flawless_lab_response(benchmark: str, problem: Problem) -> str:
    """Returns the right response to a drawn scene, readings and all.

    Raises:
        ValueError: the problem is not drawn by PerceptionLab.
    """
    numbers = scene_numbers(problem.truth)
    if problem.truth is None or numbers is None:
        raise ValueError(
            f"problem {shown(problem.id)!r} of {benchmark} is no drawn scene, so there is no flawless response "
            "to it; set probe/references=answer"
        )
    return write_response(problem.truth["operation"], *numbers.values())


class WrittenResponses:
    """Responses from a JSONL file: `problem_id`, `response`, and if wanted `benchmark` and `view`.

    The responses.jsonl of another evaluation is such a file. Of several responses to a problem the first
    is taken, of several views the plain one.

    Args:
        path: the file; read on construction, so a missing one is noticed at once.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is not such an object.
    """

    def __init__(self, *, path: str) -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no file {file} with responses to score; set probe.references.path"
            )
        self._responses: dict[tuple[str | None, str], str] = {}
        with file.open(encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                row = _read_object(file, number, line)
                if row.get("view", "image") == "image":
                    key = (row.get("benchmark"), row["problem_id"])
                    self._responses.setdefault(key, row["response"])

    def __call__(self, benchmark: str, problem: Problem) -> str | None:
        """Returns the response to a problem; a line that names no benchmark serves any."""
        own = self._responses.get((benchmark, problem.id))
        return own if own is not None else self._responses.get((None, problem.id))


def _read_object(file: Path, number: int, line: str) -> dict[str, str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{file}, line {number}: not JSON: {error}") from error
    if not isinstance(row, dict) or not all(
        isinstance(row.get(key), str) for key in ("problem_id", "response")
    ):
        raise ValueError(
            f"{file}, line {number}: an object with the texts problem_id and response is needed; got "
            f"{shown(line)!r}"
        )
    return row
