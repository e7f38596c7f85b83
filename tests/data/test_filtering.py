"""Unusable problems are left out, counted and named; nothing else is."""

import pytest
from PIL import Image

from papo.data import CheckedProblems, ProblemError, filter_problems
from papo.types import Problem


class Source:
    """Answers "ok", or a reason for which reading fails, by position."""

    def __init__(self, *outcomes):
        self.outcomes = outcomes
        self.reads = 0

    def __len__(self):
        return len(self.outcomes)

    def __getitem__(self, index):
        self.reads += 1
        if self.outcomes[index] != "ok":
            raise ProblemError(self.outcomes[index], f"problem {index}: {self.outcomes[index]}")
        return Problem(
            id=str(index),
            question="<image>" + "word " * index,
            answer="1",
            images=(Image.new("RGB", (2, 2)),),
            source="test",
        )


def words(problem):
    return len(problem.question.split())


def run(source, *, length=words, limit=1000, strict=False):
    return filter_problems(
        source, prompt_length=length, max_prompt_tokens=limit, strict=strict, num_threads=3
    )


def test_keeps_order_and_counts_every_reason():
    outcomes = ["ok", "broken_image", "ok", "empty_answer", "broken_image", "ok"]
    kept, report = run(Source(*outcomes))
    assert [kept[i].id for i in range(len(kept))] == ["0", "2", "5"]
    assert (report.seen, report.kept) == (6, 3)
    assert report.dropped == {"broken_image": 2, "empty_answer": 1}
    assert report.examples["broken_image"] == ("problem 1: broken_image", "problem 4: broken_image")


def test_a_prompt_at_the_limit_stays_and_one_above_goes():
    kept, report = run(Source(*["ok"] * 6), limit=3)
    assert [kept[i].id for i in range(len(kept))] == ["0", "1", "2", "3"]
    assert report.dropped == {"prompt_too_long": 2}
    assert "4 prompt tokens, more than data.max_prompt_tokens=3" in report.summary()


def test_a_prompt_that_cannot_be_encoded_is_left_out():
    def length(problem):
        if problem.id == "1":
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return 1

    _, report = run(Source("ok", "ok"), length=length)
    assert report.dropped == {"cannot_encode": 1}
    assert "aspect ratio" in report.summary()


def test_checked_problems_refuse_what_the_filter_leaves_out_and_for_the_same_reason():
    def length(problem):
        if problem.id == "2":
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return words(problem)

    source = Source("ok", "broken_image", "ok", "ok", "ok", "empty_answer")
    source.max_prompt_tokens, source.section = 3, "benchmark.sets.own.problems"
    kept, report = filter_problems(
        source,
        prompt_length=length,
        max_prompt_tokens=3,
        strict=False,
        num_threads=2,
        section=source.section,
    )
    checked, found, reasons = CheckedProblems(source, prompt_length=length), [], {}
    for index in range(len(checked)):
        try:
            found.append(checked[index].id)
        except ProblemError as error:
            reasons[error.reason] = str(error)
    assert found == [kept[i].id for i in range(len(kept))] == ["0", "3"]
    assert set(reasons) == set(report.dropped)
    assert reasons == {reason: example for reason, (example,) in report.examples.items()}
    assert "benchmark.sets.own.problems.max_prompt_tokens=3" in reasons["prompt_too_long"]


def test_checked_problems_of_a_source_without_a_limit_may_be_of_any_length():
    checked = CheckedProblems(Source(*["ok"] * 3), prompt_length=lambda problem: 10**9)
    assert (len(checked), checked[2].id, checked.strict) == (3, "2", False)


def test_more_problems_than_a_chunk_are_all_read_once():
    source = Source(*(["ok"] * 99 + ["broken_image"]) * 2)
    kept, report = run(source)
    assert (len(kept), report.dropped, source.reads) == (198, {"broken_image": 2}, 200)


def test_at_most_three_examples_per_reason():
    _, report = run(Source("ok", *["broken_image"] * 9))
    assert len(report.examples["broken_image"]) == 3
    assert report.dropped == {"broken_image": 9}


def test_strict_stops_at_the_first():
    with pytest.raises(ProblemError, match="problem 1: broken_image"):
        run(Source("ok", "broken_image", "empty_answer"), strict=True)


def test_nothing_left_is_an_error_that_says_why():
    with pytest.raises(
        ValueError, match=r"(?s)no usable problem is left.*dropped 2 \(empty_answer\)"
    ):
        run(Source("empty_answer", "empty_answer"))


def test_other_errors_are_not_swallowed():
    class Broken(Source):
        def __getitem__(self, index):
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(Broken("ok"))
