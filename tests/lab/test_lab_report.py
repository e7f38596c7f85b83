import json
import math
import random
from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from papo.lab import (
    Category,
    PerceptionLabProblems,
    compare_reports,
    evaluate_lab,
    held_out_sets,
    summarize_grades,
)
from papo.lab.grading import Grade, write_response
from papo.lab.report import PROMPTS_AT_ONCE, EncodedPrompts, LabHeldOut
from papo.parallel import Ranks
from papo.statistics import bootstrap_mean
from papo.types import PromptGroup, Responses


def grades(*rows):
    return [[Grade(category=Category(name)) for name in row] for row in rows]


def summary_of(rows):
    names = ["correct" if right else "perception" for row in rows for right in row]
    size = len(rows[0])
    return summarize_grades(
        grades(*(names[start : start + size] for start in range(0, len(names), size))), seed=0
    )


def test_the_interval_is_that_of_an_evaluation_of_the_same_responses():
    rng = random.Random(0)
    rows = [[rng.random() < 0.3 for _ in range(4)] for _ in range(50)]
    per_problem = [sum(row) / 4 for row in rows]
    assert summary_of(rows).accuracy == bootstrap_mean(per_problem, seed=0)


def test_repeating_the_same_responses_does_not_narrow_the_interval():
    rng = random.Random(0)
    once = [[rng.random() < 0.3] for _ in range(50)]
    often = [row * 8 for row in once]
    assert summary_of(often).accuracy == summary_of(once).accuracy


def test_unanimous_problems_do_not_claim_certainty():
    never, always = summary_of([[False]] * 60).accuracy, summary_of([[True]] * 60).accuracy
    # 0 of 60 problems excludes no rate below 1 - 0.025 ** (1 / 60) = 0.0596.
    assert (never.value, never.low, never.high) == pytest.approx((0.0, 0.0, 0.0596), abs=1e-4)
    assert (always.value, always.low, always.high) == pytest.approx((1.0, 0.9404, 1.0), abs=1e-4)


def test_accuracy_counts_luck_and_the_shares_add_up_to_one():
    report = summarize_grades(
        grades(["correct", "correct_but_misread"], ["perception", "format"], ["correct"] * 2),
        seed=0,
    )
    assert report.num_problems == 3
    assert report.num_responses == 2
    assert report.accuracy.value == pytest.approx(4 / 6)
    assert report.shares["correct"].value == pytest.approx(3 / 6)
    assert set(report.shares) == {category.value for category in Category}
    assert math.fsum(share.value for share in report.shares.values()) == pytest.approx(1.0)


@pytest.mark.parametrize("rows", [[], [[]], [["correct"], ["correct", "format"]]])
def test_uneven_or_missing_responses_are_refused(rows):
    with pytest.raises(ValueError, match="same number of graded responses"):
        summarize_grades(grades(*rows), seed=0)


class FakePolicy:
    """Encodes a problem without reading it; remembers how many prompts came at once."""

    def __init__(self):
        self.batches = []

    def encode(self, problems):
        self.batches.append(len(problems))
        return tuple(
            PromptGroup(
                problem=problem,
                prompt_ids=torch.zeros(1, dtype=torch.long),
                position_ids=torch.zeros(3, 1, dtype=torch.long),
                next_position=1,
            )
            for problem in problems
        )

    def score(
        self, groups, response_ids, response_mask, *, views=("image",), full_vocabulary=False
    ):
        raise NotImplementedError


class FakeEngine:
    """Answers rightly with its first response to a problem and misreads b in the others."""

    def __init__(self):
        self.seeds = []

    def follow(self, source, version):
        pass

    def sample(self, groups, num_responses, seeds):
        self.seeds.append(tuple(seeds))
        texts = []
        for group in groups:
            truth = group.problem.truth
            a, b = truth["a"], truth["b"]
            texts.append(write_response(truth["operation"], a, b))
            texts.extend([write_response(truth["operation"], a, b + 10)] * (num_responses - 1))
        shape = (len(texts), 1)
        return Responses(
            ids=torch.zeros(shape, dtype=torch.long),
            mask=torch.ones(shape, dtype=torch.bool),
            logprobs=torch.zeros(shape),
            finished=torch.ones(len(texts), dtype=torch.bool),
            texts=tuple(texts),
        )


def evaluate(num_problems, policy=None, engine=None):
    return evaluate_lab(
        policy or FakePolicy(),
        engine or FakeEngine(),
        held_out_sets(zipf_exponent=1.0, difficulty=0.0, size=num_problems),
        num_problems=num_problems,
        num_responses=4,
        seed=5,
        ranks=Ranks(),
    )


def test_the_evaluation_grades_each_response_against_its_own_problem():
    report = evaluate(20)
    assert set(report.sets) == {"training prior", "counter-prior"}
    for one in report.sets.values():
        assert (one.num_problems, one.num_responses) == (20, 4)
        assert one.accuracy.value == 0.25
        assert one.shares["perception"].value == 0.75


def test_the_evaluation_reads_in_chunks_with_their_own_noise():
    policy, engine = FakePolicy(), FakeEngine()
    evaluate(PROMPTS_AT_ONCE + 3, policy, engine)
    assert policy.batches == [PROMPTS_AT_ONCE, 3] * 2
    assert len(set(engine.seeds)) == 4
    again = FakeEngine()
    evaluate(PROMPTS_AT_ONCE + 3, engine=again)
    assert again.seeds == engine.seeds


def test_a_run_encodes_its_held_out_problems_once_and_finds_the_same():
    held_out = LabHeldOut(
        sets=held_out_sets(zipf_exponent=1.0, difficulty=0.0, size=3),
        num_problems=3,
        num_responses=2,
        seed=5,
    )
    policy, engine = FakePolicy(), FakeEngine()
    first, second = (held_out.evaluate(policy, engine, ranks=Ranks()) for _ in range(2))
    assert policy.batches == [3, 3]
    assert engine.seeds[:2] == engine.seeds[2:]
    assert (
        first
        == second
        == evaluate_lab(
            FakePolicy(),
            FakeEngine(),
            held_out.sets,
            num_problems=3,
            num_responses=2,
            seed=5,
            ranks=Ranks(),
        )
    )
    other = FakePolicy()
    held_out.evaluate(other, engine, ranks=Ranks())
    assert other.batches == [3, 3]


def test_prompts_beyond_the_memory_are_encoded_anew():
    class OfOnePatch(FakePolicy):
        def encode(self, problems):
            return tuple(
                replace(group, patches=torch.zeros(1, 1), pictures=())
                for group in super().encode(problems)
            )

    policy = OfOnePatch()
    sets = held_out_sets(zipf_exponent=1.0, difficulty=0.0, size=3)
    prompts = EncodedPrompts(policy, sets, most_bytes=9)
    name = next(iter(sets))
    read = [prompts.read(name, (2, 0, 1)) for _ in range(2)]
    assert policy.batches == [3, 1]
    assert [[group.problem.id for group in groups] for groups in read] == [
        [sets[name][index].id for index in (2, 0, 1)]
    ] * 2


def test_a_set_that_is_too_small_is_refused():
    problems = PerceptionLabProblems(
        seed=0, prior="training", zipf_exponent=1.0, difficulty=0.0, size=3
    )
    with pytest.raises(ValueError, match="'small' holds 3 problems"):
        evaluate_lab(
            FakePolicy(),
            FakeEngine(),
            {"small": problems},
            num_problems=4,
            num_responses=1,
            seed=0,
            ranks=Ranks(),
        )


def test_the_table_shows_every_share_before_and_after():
    before, after = evaluate(20), evaluate(30)
    out = StringIO()
    Console(file=out, width=80).print(compare_reports({"before": before, "after": after}))
    printed = out.getvalue()
    for word in ("accuracy", "correct but misread", "perception", "reasoning", "calculation"):
        assert word in printed
    for heading in ("training prior", "counter-prior", "before", "after"):
        assert heading in printed
    assert "…" not in printed
    # All problems agree; open is a share of 1 - 0.025 ** (1 / 20) = 0.168 at 0 or at 1, of 30 0.116.
    assert "25.0 [20.8, 37.6]" in printed
    assert "25.0 [22.1, 33.7]" in printed


def test_the_report_becomes_json_and_flat_metrics():
    report = evaluate(20)
    read = json.loads(json.dumps(report.to_dict()))
    assert read["counter-prior"]["shares"]["perception"]["value"] == 0.75
    assert read["training prior"]["accuracy"]["value"] == 0.25
    scalars = report.scalars()
    assert scalars["counter-prior/accuracy"] == 0.25
    assert scalars["training prior/perception"] == 0.75
    assert len(scalars) == 2 * (1 + len(Category))
