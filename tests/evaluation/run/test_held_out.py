"""Benchmarks as a training run evaluates its policy on them."""

import io
import logging

import pytest
from evaluation.evaluation_parts import BoxGrader, Engine, Problems, Reader, benchmark
from rich.console import Console


class Policy(Reader):
    """With what a policy says of the length of a prompt."""

    class encoder:
        prompt_length = staticmethod(lambda problem: 10)


def held_out(*benchmarks, **changes):
    from papo.evaluation.run.held_out import HeldOutBenchmarks

    settings = {
        "num_problems": None,
        "num_responses": 2,
        "max_response_tokens": 8,
        "tokens_per_batch": 300,
        "seed": 3,
        **changes,
    }
    return HeldOutBenchmarks(benchmarks=benchmarks, **settings)


def evaluated(held, engine=None):
    from papo.parallel import Ranks

    return held.evaluate(Policy(), engine or Engine(), ranks=Ranks())


def test_the_names_of_its_numbers_are_known_before():
    held = held_out(benchmark(Problems(4), key="one"), benchmark(Problems(3), key="two"))
    assert tuple(evaluated(held).scalars()) == held.names


def test_shares_are_over_problems_and_equal_in_every_evaluation():
    held = held_out(benchmark(Problems(4)))
    first, second = evaluated(held), evaluated(held)
    assert first == second
    one = first.to_dict()["set"]
    assert (one["num_problems"], one["num_responses"]) == (4, 2)
    assert one["accuracy"]["low"] <= one["accuracy"]["value"] <= one["accuracy"]["high"]
    assert first.scalars()["set/accuracy"] == one["accuracy"]["value"]


def test_responses_are_those_of_an_evaluation(tmp_path):
    """Of evaluate.py with the same seed: what the engine is asked for is the same."""
    from papo.evaluation.run.runner import Runner
    from papo.parallel import Ranks
    from papo.storage.responses import ResponseStore
    from papo.views import ImageView

    ours, theirs = Engine(), Engine()
    held = held_out(benchmark(Problems(5)))
    evaluated(held, ours)
    Runner(
        ranks=Ranks(),
        policy=Reader(),
        engine=theirs,
        views=(ImageView(),),
        store=ResponseStore(tmp_path, picture_side=8),
        num_responses=2,
        max_response_tokens=8,
        tokens_per_batch=300,
        seed=3,
    ).run([benchmark(Problems(5))], lambda what, problems: None)
    assert ours.calls == theirs.calls


def test_only_the_first_problems_are_read_where_a_number_is_set():
    problems = Problems(9)
    report = evaluated(held_out(benchmark(problems), num_problems=4))
    assert report.to_dict()["set"]["num_problems"] == 4
    assert set(problems.reads) == {0, 1, 2, 3}
    assert (
        evaluated(held_out(benchmark(Problems(3)), num_problems=4)).sets["set"]["num_problems"] == 3
    )


def test_what_cannot_be_read_is_named_once_and_left_out(caplog):
    held = held_out(benchmark(Problems(4, broken={2})))
    with caplog.at_level(logging.WARNING):
        reports = [evaluated(held), evaluated(held)]
    assert [report.sets["set"]["num_problems"] for report in reports] == [3, 3]
    assert len(caplog.records) == 1


def test_a_benchmark_of_which_nothing_can_be_shown_is_refused():
    with pytest.raises(ValueError, match="none of the held-out problems"):
        evaluated(held_out(benchmark(Problems(2, broken={0, 1}))))


def test_graders_end_with_every_evaluation():
    grader = BoxGrader()
    evaluated(held_out(benchmark(Problems(2), grader=grader)))
    assert grader.closed


def test_the_table_has_a_section_per_benchmark_and_a_column_per_moment():
    held = held_out(benchmark(Problems(4)))
    report = evaluated(held).to_dict()
    out = io.StringIO()
    Console(file=out, width=80).print(held.table({"before": report, "after": report}))
    assert all(
        word in out.getvalue() for word in ("set", "before", "after", "accuracy", "answered")
    )
