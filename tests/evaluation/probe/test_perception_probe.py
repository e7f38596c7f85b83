"""The perception KL of every token, against a naive computation over the whole vocabulary."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from model_fixtures import noise_image, problem, tiny_policy

from papo.evaluation import (
    Benchmark,
    PerceptionProbe,
    WrittenResponses,
    boxed_answer,
    flawless_lab_response,
)
from papo.evaluation.probe.report import summarize_probe, write_probe_summary
from papo.evaluation.probe.token_divergence import TokenDivergence
from papo.evaluation.scored_folder import run_scoring
from papo.evaluation.token_weights import carried_by_top
from papo.lab import PerceptionLabProblems, grade_response
from papo.masking import BlankMask, RandomPatchMask
from papo.parallel import Ranks
from papo.types import ResponseRecord, derive_seed
from papo.views import hide, mask_seed


@pytest.fixture(scope="module")
def policy():
    return tiny_policy()


def random_mask(ratio):
    return RandomPatchMask(ratio=ratio, grid="patch", raw_square_pixels=14, seed=0)


def some_problems():
    return [
        problem("<image> How many?", images=(noise_image(56, 56, 1),), answer="12", id="a"),
        problem("No picture.", images=(), answer="3", id="text"),
        problem("<image><image> Which?", images=(noise_image(56, 84, 2),) * 2, answer="4", id="b"),
        problem("<image> Where is it, then?", images=(noise_image(56, 56, 3),), answer="x", id="c"),
    ]


def benchmark(problems, key="some"):
    return Benchmark(
        key=key,
        label=key,
        group="other",
        published_column=None,
        problems=problems,
        grader=lambda problems, texts: (),
    )


def make_probe(**changes):
    settings = {
        "mask": random_mask(0.6),
        "num_masks": 2,
        "num_problems": None,
        "num_responses": 0,
        "references": boxed_answer,
        "tokens_per_pass": 10_000,
        "seed": 0,
    }
    return PerceptionProbe(**{**settings, **changes})


def probed(policy, probe, problems, records=(), done=frozenset(), key="some"):
    return [
        one
        for some in probe.run(policy, benchmark(problems, key), records, done=done, ranks=Ranks())
        for one in some
    ]


def record(problem_id, index, response, *, stop_reason="end", num_tokens=99, view="image"):
    return ResponseRecord(
        benchmark="some",
        problem_id=problem_id,
        view=view,
        response_index=index,
        seed=0,
        response=response,
        reference="",
        answer=None,
        correct=True,
        verdicts={},
        num_tokens=num_tokens,
        stop_reason=stop_reason,
    )


def next_token_logprobs(policy, group, ids):
    """log p(. | prefix) at every response position, by a plain pass token by token."""
    prefix = policy.prefill([group])
    found = [policy.next_token_logprobs(prefix.last_hidden)[0]]
    for token in ids[:-1]:
        policy.extend(prefix, torch.tensor([[token]]), torch.tensor([[True]]))
        found.append(policy.next_token_logprobs(prefix.last_hidden)[0])
    return torch.stack(found).double()


@torch.no_grad()
def naive_divergence(policy, one, text, mask, num_masks):
    """Exact KL and k3 of each token, mean over the masks, from whole distributions."""
    tokenizer = policy.encoder.tokenizer
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    (group,) = policy.encode([one])
    clean = next_token_logprobs(policy, group, ids)
    exact, k3 = torch.zeros(len(ids)).double(), torch.zeros(len(ids)).double()
    for index in range(num_masks):
        seed = mask_seed(derive_seed(0, "some", one.id), mask, index)
        masked = next_token_logprobs(policy, hide(group, mask, policy, seed=seed), ids)
        for t, token in enumerate(ids):
            kept = clean[t].isfinite()
            exact[t] += (clean[t][kept].exp() * (clean[t][kept] - masked[t][kept])).sum()
            log_ratio = float(masked[t, token] - clean[t, token])
            k3[t] += math.exp(log_ratio) - 1 - log_ratio
    return (exact / num_masks).tolist(), (k3 / num_masks).tolist()


@pytest.mark.parametrize("tokens_per_pass", [1, 150, 10_000])
def test_exact_and_k3_are_those_of_the_whole_distributions(policy, tokens_per_pass):
    problems = some_problems()
    found = probed(policy, make_probe(tokens_per_pass=tokens_per_pass), problems)
    assert [one.problem_id for one in found] == ["a", "b", "c"]
    for one in found:
        of = next(p for p in problems if p.id == one.problem_id)
        text = f"\\boxed{{{of.answer}}}"
        exact, k3 = naive_divergence(policy, of, text, random_mask(0.6), 2)
        assert one.kl_exact == pytest.approx(exact, rel=1e-3, abs=1e-5)
        assert one.kl_k3 == pytest.approx(k3, rel=1e-3, abs=1e-5)
        assert "".join(one.tokens[:-1]) == text
        assert len(one.tokens) == len(one.kl_k3) == len(one.kl_exact)


def test_own_responses_and_references_stand_side_by_side(policy):
    records = [
        record("a", 0, "1 2 3"),
        record("a", 1, "not asked for"),
        record("a", 0, "of another view", view="blank"),
        record("b", 0, "cut off", stop_reason="length"),
    ]
    found = probed(policy, make_probe(num_responses=1), some_problems(), records)
    assert [(one.problem_id, one.kind) for one in found] == [
        *(("a", "own"), ("a", "reference"), ("b", "own"), ("b", "reference")),
        ("c", "reference"),
    ]
    own_of_a, own_of_b = found[0], found[2]
    end = policy.encoder.tokenizer.decode([policy.encoder.tokenizer.eos_token_id])
    assert "".join(own_of_a.tokens) == "1 2 3" + end
    assert "".join(own_of_b.tokens) == "cut off"
    alone = probed(policy, make_probe(), some_problems())
    assert found[1].kl_exact == pytest.approx(alone[0].kl_exact, rel=1e-3, abs=1e-6)


def test_a_response_that_is_cut_into_other_tokens_is_noticed(policy):
    tokenizer = policy.encoder.tokenizer
    right = len(tokenizer("1 2")["input_ids"]) + 1
    records = [record("a", 0, "1 2", num_tokens=right), record("b", 0, "1 2", num_tokens=right + 1)]
    found = probed(policy, make_probe(num_responses=1, references=None), some_problems(), records)
    assert [one.same_length for one in found] == [True, False]
    (summary,) = summarize_probe(found, bootstrap_seed=0)
    assert summary.same_length == 0.5


def test_a_mask_that_hides_nothing_leaves_nothing_between_the_views(policy):
    found = probed(policy, make_probe(mask=random_mask(0.0)), some_problems())
    assert all(abs(value) < 1e-6 for one in found for value in one.kl_exact + one.kl_k3)


def test_a_mask_that_hides_everything_leaves_a_lot(policy):
    hidden = probed(policy, make_probe(mask=BlankMask()), some_problems())
    assert all(min(one.kl_exact) > 1e-4 for one in hidden)
    some = probed(policy, make_probe(mask=random_mask(0.2)), some_problems())
    assert sum(map(sum, (one.kl_exact for one in hidden))) > sum(
        map(sum, (one.kl_exact for one in some))
    )


@torch.no_grad()
def test_k3_of_own_tokens_averages_to_the_exact_kl(policy):
    # One-token responses drawn from the policy itself: k3 is unbiased for them.
    one = some_problems()[0]
    (group,) = policy.encode([one])
    probe = make_probe(num_masks=1, mask=BlankMask())
    clean = next_token_logprobs(policy, group, [0])[0]
    draws = torch.multinomial(clean.exp(), 4000, True, generator=torch.Generator().manual_seed(0))
    masked_group = hide(group, probe.mask, policy, seed=0)
    masked = next_token_logprobs(policy, masked_group, [0])[0]
    log_ratio = (masked - clean)[draws]
    k3 = log_ratio.exp() - 1 - log_ratio
    # The first token of any response has this exact KL.
    exact = probed(policy, probe, [one])[0].kl_exact[0]
    error = float(k3.std()) / math.sqrt(len(k3))
    assert float(k3.mean()) == pytest.approx(exact, abs=3 * error)
    assert error < 0.2 * exact


def test_a_folder_keeps_what_is_scored_and_goes_on_from_there(policy, tmp_path):
    (tmp_path / "responses.jsonl").write_text(
        record("a", 0, "1 2 3").to_line() + record("b", 0, "4").to_line()
    )

    def run(num_problems):
        advanced = []

        def progress(total, done):
            advanced.append((total, done))
            return nullcontext(lambda what, count: advanced.append((what, count)))

        run_scoring(
            make_probe(num_responses=1, num_problems=num_problems),
            policy=policy,
            benchmarks=[benchmark(some_problems())],
            folder=tmp_path,
            bootstrap_seed=0,
            ranks=Ranks(),
            progress=progress,
        )
        return advanced

    one = ("some, probe", 1)
    assert run(1) == [(1, 0), one]
    begun = (tmp_path / "perception_kl.jsonl").read_text()
    with (tmp_path / "perception_kl.jsonl").open("a") as file:
        file.write('{"benchmark": "some", "problem_id": "b", "ki')  # a crash
    # The last problem is scored again: the crash may have cost some of its lines. The bar fills:
    # the problem without a picture counts too.
    assert run(None) == [(4, 0), one, one, one, one]
    lines = (tmp_path / "perception_kl.jsonl").read_text().splitlines()
    for before, after in zip(begun.splitlines(), lines, strict=False):
        known, again = json.loads(before), json.loads(after)
        for name in ("kl_k3", "kl_exact"):
            # Scored beside other rows, which may move the last digit.
            assert again.pop(name) == pytest.approx(known.pop(name), rel=1e-4)
        assert again == known
    found = [TokenDivergence.from_line(line) for line in lines]
    assert [one.problem_id for one in found] == ["a", "a", "b", "b", "c"]
    assert "| some | own | 2 | 2 |" in (tmp_path / "perception_kl.md").read_text()
    # Two are done, the third is scored again, the one without a picture is passed again.
    assert run(None) == [(4, 2), one, one]


def test_responses_are_read_once_however_many_benchmarks(policy, tmp_path, monkeypatch):
    from papo.evaluation import scored_folder as folder

    (tmp_path / "responses.jsonl").write_text(
        record("a", 0, "1 2 3").to_line() + record("a", 1, "never scored").to_line()
    )
    original, reads = folder.read_responses, []

    def counted(folder):
        reads.append(folder)
        return original(folder)

    monkeypatch.setattr(folder, "read_responses", counted)
    run_scoring(
        make_probe(num_responses=1, num_problems=1, references=None),
        policy=policy,
        benchmarks=[benchmark(some_problems(), key) for key in ("other", "some", "third")],
        folder=tmp_path,
        bootstrap_seed=0,
        ranks=Ranks(),
        progress=lambda total, done: nullcontext(lambda what, count: None),
    )
    assert len(reads) == 1
    [line] = (tmp_path / "perception_kl.jsonl").read_text().splitlines()
    assert TokenDivergence.from_line(line).benchmark == "some"


def test_a_crash_between_two_lines_of_a_problem_costs_neither(policy, tmp_path):
    (tmp_path / "responses.jsonl").write_text(record("a", 0, "1 2 3").to_line())
    file = tmp_path / "perception_kl.jsonl"

    def run():
        run_scoring(
            make_probe(num_responses=1, num_problems=1),
            policy=policy,
            benchmarks=[benchmark(some_problems())],
            folder=tmp_path,
            bootstrap_seed=0,
            ranks=Ranks(),
            progress=lambda total, done: nullcontext(lambda what, count: None),
        )
        return file.read_text()

    whole = run()
    assert len(whole.splitlines()) == 2
    file.write_text(whole.splitlines()[0] + "\n")
    assert run() == whole


def test_problems_that_are_done_are_not_scored_again(policy):
    assert [
        one.problem_id
        for one in probed(policy, make_probe(), some_problems(), done=frozenset("ac"))
    ] == ["b"]


def test_only_the_first_problems_are_scored_where_so_many_are_asked_for(policy):
    found = probed(policy, make_probe(num_problems=3), some_problems())
    assert [one.problem_id for one in found] == ["a", "b"]


def test_an_own_response_that_spells_an_image_token_is_left_out_and_named(policy, caplog):
    records = [record("a", 0, "look: <|image_pad|>"), record("a", 1, "1 2 3")]
    found = probed(policy, make_probe(num_responses=2), some_problems(), records)
    of_a = [(one.kind, one.response_index) for one in found if one.problem_id == "a"]
    assert of_a == [("own", 1), ("reference", 0)]
    assert "left out of the probe: response 0, a response to 'a'" in caplog.text


def test_a_reference_that_spells_an_image_token_is_left_out_and_named(policy, caplog):
    probe = make_probe(
        num_responses=1,
        references=lambda benchmark, one: "1 2" if one.id == "b" else "look: <|image_pad|>",
    )
    found = probed(policy, probe, some_problems(), [record("a", 0, "1 2 3")])
    assert [(one.problem_id, one.kind) for one in found] == [("a", "own"), ("b", "reference")]
    assert "left out of the probe: the reference, a response to 'a'" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_masks": 0}, "num_masks"),
        ({"num_problems": 0}, "probe.num_problems"),
        ({"num_responses": -1}, "probe.num_responses"),
        ({"references": None}, "no references"),
        ({"tokens_per_pass": 0}, "probe.tokens_per_pass"),
        ({"mask": partial(BlankMask)}, "masking=random"),
    ],
)
def test_impossible_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_probe(**changes)


# --- references


def test_the_flawless_response_to_a_scene_is_graded_right():
    scene = PerceptionLabProblems(
        seed=0, prior="uniform", zipf_exponent=0.0, difficulty=1.0, size=9
    )[4]
    assert grade_response(scene.truth, flawless_lab_response("lab", scene)).category == "correct"
    with pytest.raises(ValueError, match="probe/references=answer"):
        flawless_lab_response("some", some_problems()[0])


def test_written_responses_are_found_by_benchmark_and_problem(tmp_path):
    file = tmp_path / "responses.jsonl"
    rows = [
        {"benchmark": "some", "problem_id": "a", "view": "blank", "response": "blind"},
        {"benchmark": "some", "problem_id": "a", "view": "image", "response": "first"},
        {"benchmark": "some", "problem_id": "a", "view": "image", "response": "second"},
        {"problem_id": "b", "response": "anywhere"},
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = WrittenResponses(path=str(file))
    a, _, b, c = some_problems()
    assert written("some", a) == "first"
    assert written("other", a) is None
    assert written("other", b) == "anywhere"
    assert written("some", c) is None


def test_a_record_of_an_evaluation_is_a_written_response(tmp_path):
    file = tmp_path / "responses.jsonl"
    file.write_text(record("a", 0, "mine").to_line())
    assert WrittenResponses(path=str(file))("some", some_problems()[0]) == "mine"


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '{"problem_id": 3, "response": "x"}', '{"a": 1}']
)
def test_a_file_of_something_else_is_refused_by_line(tmp_path, line):
    file = tmp_path / "wrong.jsonl"
    file.write_text('{"problem_id": "a", "response": "x"}\n' + line + "\n")
    with pytest.raises(ValueError, match="line 2"):
        WrittenResponses(path=str(file))
    with pytest.raises(FileNotFoundError, match=r"probe\.references\.path"):
        WrittenResponses(path=str(tmp_path / "nowhere"))


# --- the summary


def divergence(problem_id, exact, *, index=0, kind="own", benchmark="some", tokens=None):
    return TokenDivergence(
        benchmark=benchmark,
        problem_id=problem_id,
        kind=kind,
        response_index=index,
        same_length=True if kind == "own" else None,
        tokens=tuple(tokens or "abcdefghij"[: len(exact)]),
        kl_k3=tuple(2 * value for value in exact),
        kl_exact=tuple(exact),
    )


def test_the_numbers_of_a_small_summary_by_hand():
    found = [
        divergence("p", [0.0, 0.0, 0.0, 0.0, 1.0]),
        divergence("p", [0.2] * 5, index=1),
        divergence("q", [0.0, 0.4]),
    ]
    (summary,) = summarize_probe(found, bootstrap_seed=0)
    assert (summary.num_problems, summary.num_responses, summary.num_tokens) == (2, 3, 12)
    assert summary.kl_exact.value == pytest.approx((0.2 + 0.2) / 2)
    assert summary.kl_k3.value == pytest.approx(0.4)
    # Variances 0.16 and 0 of p's responses, 0.04 of q's.
    assert summary.variance_exact.value == pytest.approx((0.08 + 0.04) / 2)
    assert summary.variance_k3.value == pytest.approx(4 * 0.06)
    # The top fifth of 5 tokens is one: all of it, then a fifth; of two tokens also one.
    assert summary.top_share.value == pytest.approx(((1.0 + 0.2) / 2 + 1.0) / 2)
    assert [(one.token, one.count) for one in summary.top_tokens[:2]] == [("e", 2), ("b", 3)]
    assert summary.top_tokens[0].mean_kl == pytest.approx(0.6)
    assert summary.top_tokens[0].share_of_kl == pytest.approx(1.2 / 2.4)


@pytest.mark.parametrize(
    ("values", "carried"),
    [
        ([1.0] * 10, 0.2),
        ([5.0, 1.0, 1.0, 1.0, 2.0], 0.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 15.0], 20 / 30),
        ([3.0], 1.0),
        ([1.0] * 35, 0.2),
    ],
)
def test_the_top_fifth_carries_its_share(values, carried):
    assert carried_by_top(values, 0.2) == pytest.approx(carried)


def test_without_any_kl_no_token_carries_it():
    (summary,) = summarize_probe([divergence("p", [0.0, 0.0])], bootstrap_seed=0)
    assert summary.top_share is None
    assert summary.top_tokens == ()
    assert (summary.kl_exact.value, summary.kl_exact.high) == (0.0, None)


def test_kinds_and_benchmarks_stay_apart_and_are_pooled(tmp_path):
    found = [
        divergence("p", [0.1], benchmark="x"),
        divergence("p", [0.3], benchmark="y"),
        divergence("p", [0.5], benchmark="y", kind="reference", tokens=["<b>|`"]),
    ]
    summaries = summarize_probe(found, bootstrap_seed=0)
    assert [(one.benchmark, one.kind, one.num_problems) for one in summaries] == [
        *(("x", "own", 1), ("y", "own", 1), ("y", "reference", 1)),
        *(("all benchmarks", "own", 2), ("all benchmarks", "reference", 1)),
    ]
    assert summaries[3].kl_exact.value == pytest.approx(0.2)
    write_probe_summary(summaries, tmp_path)
    assert json.loads((tmp_path / "perception_kl_summary.json").read_text())[1]["num_tokens"] == 1
    text = (tmp_path / "perception_kl.md").read_text()
    assert "&lt;b&gt;\\|`" in text
    assert "<b>" not in text


def test_a_line_is_read_back_as_it_was():
    one = replace(divergence("p", [0.25, 1e-7]), tokens=("\n", "é"))
    assert TokenDivergence.from_line(one.to_line()) == one
