"""The tables of an evaluation, and how they survive a crash.

responses.jsonl  one `ResponseRecord` per line: benchmark by benchmark, view by view, problem by problem
problems.jsonl   one line per problem, its pictures under images/
batches.csv      one row per finished batch: what it held, and how long it took

A batch counts once its row stands in batches.csv. Opening the store cuts responses.jsonl back to the
finished batches, so what a killed run had begun is done again exactly as it would have been; what was
cut off is kept in responses.jsonl.cut-TIME.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from PIL.Image import Image

from papo.storage.files import AppendOnlyFile, CutLines, DamagedFile, cut_lines
from papo.storage.provenance import image_hash
from papo.types import Problem, ResponseRecord, shown

_RESTART = "Restore it, or start in another run_dir."
TABLES = ("responses.jsonl", "problems.jsonl", "batches.csv")


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedBatch:
    """One row of batches.csv.

    Attributes:
        benchmark, view: of the batch.
        first_problem: index of its first problem in the benchmark.
        num_problems: consecutive problems it covers, those left out included.
        num_left_out: problems without a response: no picture to change, or not readable.
        num_responses: lines it added to responses.jsonl.
        num_tokens: sampled tokens.
        sample_seconds, grade_seconds: wall time.
    """

    benchmark: str
    view: str
    first_problem: int
    num_problems: int
    num_left_out: int
    num_responses: int
    num_tokens: int
    sample_seconds: float
    grade_seconds: float


_COLUMNS = tuple(field.name for field in fields(FinishedBatch))


@dataclass(frozen=True, slots=True)
class _Content:
    """What a problem asks; `image_hashes` is None in folders that were begun without them."""

    question: str
    answer: str
    image_hashes: list[str] | None

    def difference(self, other: "_Content") -> str | None:
        """What another reading of the problem has changed; pictures only where both are known."""
        if (self.question, self.answer) != (other.question, other.answer):
            return "another question or answer"
        if self.image_hashes is not None and self.image_hashes != other.image_hashes:
            return "another picture"
        return None


class ResponseStore:
    """The growing tables of one evaluation folder; one process at a time.

    Args:
        folder: made if it is not there.
        picture_side: kept pictures are shrunk to at most so many pixels a side.

    Attributes:
        cut: the responses of an unfinished batch that were cut off; None where there were none.

    Raises:
        ValueError: the tables are damaged, or contradict one another.
    """

    def __init__(self, folder: Path, *, picture_side: int) -> None:
        self.folder = folder
        self.picture_side = picture_side
        self._batch_file = AppendOnlyFile(folder / "batches.csv")
        self.batches = _read_batches(self._batch_file)
        if not self._batch_file.read_lines():
            self._batch_file.append(",".join(_COLUMNS) + "\n")
        self.cut = _cut_to_lines(
            folder / "responses.jsonl", sum(b.num_responses for b in self.batches)
        )
        self._response_file = AppendOnlyFile(folder / "responses.jsonl")
        self._problem_file = AppendOnlyFile(folder / "problems.jsonl")
        self._problems: dict[tuple[str, int, str], _Content] = {}
        self._taken: set[tuple[str, int | str]] = set()
        for number, line in enumerate(self._problem_file.read_lines(), start=1):
            try:
                row = json.loads(line)
                content = _Content(row["question"], row["answer"], row.get("image_hashes"))
                self._remember(row["benchmark"], row["index"], row["problem_id"], content)
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise DamagedFile(
                    f"{folder / 'problems.jsonl'} is damaged, line {number}: {error}. {_RESTART}"
                ) from error

    def num_done(self, benchmark: str, view: str) -> int:
        """How many of a benchmark's first problems are finished in a view."""
        return sum(
            batch.num_problems
            for batch in self.batches
            if (batch.benchmark, batch.view) == (benchmark, view)
        )

    def keep_problem(self, benchmark: str, index: int, problem: Problem) -> None:
        """Writes a problem with its pictures, unless it is there already.

        Raises:
            ValueError: another problem stands at this index, its id is taken, or its text or a picture
                was changed.
        """
        content = _Content(problem.question, problem.answer, [*map(image_hash, problem.images)])
        known = self._problems.get((benchmark, index, problem.id))
        if known is not None:
            if difference := known.difference(content):
                raise ValueError(
                    f"problem {shown(problem.id)!r} of {benchmark} had {difference} when this evaluation "
                    "began; restore the data, or start in another run_dir"
                )
            return
        if (benchmark, index) in self._taken:
            raise ValueError(
                f"problem {index} of {benchmark} was another one when this evaluation began, and is "
                f"{shown(problem.id)!r} now; restore the data, or start in another run_dir"
            )
        if (benchmark, problem.id) in self._taken:
            raise ValueError(
                f"{benchmark} holds two problems with the id {shown(problem.id)!r}; results are told apart by "
                "it. Give every row an id of its own, or number them: set the problems' id_column to null."
            )
        with self._says_how_to_go_on():
            line = {
                "benchmark": benchmark,
                "index": index,
                "problem_id": problem.id,
                "question": problem.question,
                "answer": problem.answer,
                "images": [
                    self._keep_picture(image, f"{benchmark}/{index:05d}_{number}.png")
                    for number, image in enumerate(problem.images)
                ],
                "image_hashes": content.image_hashes,
                "truth": None if problem.truth is None else dict(problem.truth),
            }
            if problem.system_prompt is not None:
                line["system_prompt"] = problem.system_prompt
            # What a data set tells of a picture may hold dates and the like; text of them is enough.
            self._problem_file.append(json.dumps(line, default=str) + "\n")
        self._remember(benchmark, index, problem.id, content)

    def add(self, batch: FinishedBatch, records: Sequence[ResponseRecord]) -> None:
        """Writes the responses of a batch, then the row that makes them count.

        Raises:
            OSError: the disk is full; what was finished before is intact.
        """
        assert batch.num_responses == len(records)
        with self._says_how_to_go_on():
            self._response_file.append("".join(record.to_line() for record in records))
            self._batch_file.append(_csv_line(batch))
        self.batches.append(batch)

    @contextmanager
    def _says_how_to_go_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"could not write to {self.folder}: {error}. Everything graded before is kept. Free some "
                f"space, then run the same command with run_dir={self.folder} resume=true."
            ) from error

    def _remember(self, benchmark: str, index: int, problem_id: str, content: "_Content") -> None:
        self._problems[benchmark, index, problem_id] = content
        self._taken.update(((benchmark, index), (benchmark, problem_id)))

    def _keep_picture(self, image: Image, name: str) -> str:
        path = self.folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = image.convert("RGB")
        picture.thumbnail((self.picture_side, self.picture_side))
        unfinished = path.with_name(path.name + ".unfinished")
        picture.save(unfinished, "PNG")
        os.replace(unfinished, path)
        return f"images/{name}"


def problem_identities(folder: Path) -> dict[tuple[str, str], str]:
    """Returns, by benchmark and problem id, what is equal where two benchmarks ask the same.

    The same question about the same pictures has one identity. Problems of a folder that was begun
    without hashes of pictures have none, and so have all where there is no problems.jsonl.
    """
    file = folder / "problems.jsonl"
    found = {}
    if file.exists():
        with file.open(encoding="utf-8", newline="\n") as lines:
            for line in lines:
                row = json.loads(line)
                if "image_hashes" in row:
                    asked = json.dumps([row["question"], row["image_hashes"]]).encode()
                    identity = hashlib.sha256(asked).hexdigest()[:32]
                    found[row["benchmark"], row["problem_id"]] = identity
    return found


def read_responses(folder: Path) -> Iterator[ResponseRecord]:
    """Yields the records of an evaluation folder in their order, one in memory at a time.

    Raises:
        ValueError: a line is no record; names it.
    """
    file = folder / "responses.jsonl"
    with file.open(encoding="utf-8", newline="\n") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield ResponseRecord.from_line(line)
            except ValueError as error:
                raise ValueError(f"{file}, line {number}: {error}") from error


def _read_batches(file: AppendOnlyFile) -> list[FinishedBatch]:
    rows = list(csv.reader(file.read_lines()))
    if rows and tuple(rows[0]) != _COLUMNS:
        raise ValueError(f"{file.path} is no table of batches; its first line is {rows[0]}")
    batches = []
    for line, row in enumerate(rows[1:], start=2):
        try:
            benchmark, view, *counts, sample_seconds, grade_seconds = row
            first_problem, num_problems, num_left_out, num_responses, num_tokens = map(int, counts)
            batches.append(
                FinishedBatch(
                    benchmark=benchmark,
                    view=view,
                    first_problem=first_problem,
                    num_problems=num_problems,
                    num_left_out=num_left_out,
                    num_responses=num_responses,
                    num_tokens=num_tokens,
                    sample_seconds=float(sample_seconds),
                    grade_seconds=float(grade_seconds),
                )
            )
        except ValueError as error:
            raise DamagedFile(
                f"{file.path} is damaged, line {line}: {error}. {_RESTART}"
            ) from error
    return batches


def _csv_line(batch: FinishedBatch) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(astuple(batch))
    return text.getvalue()


def _cut_to_lines(file: Path, num_lines: int) -> CutLines | None:
    """Cuts off the whole lines after the first `num_lines`, and keeps them beside."""
    found = 0
    if file.exists():
        with file.open("rb") as lines:
            found = sum(line.endswith(b"\n") for line in lines)
    if found < num_lines:
        raise ValueError(
            f"{file} holds {found} whole lines and batches.csv speaks of {num_lines}; it was changed or "
            "damaged. Start in another run_dir."
        )
    return cut_lines(file, lambda number, _: number < num_lines)
