"""The loop: what is sampled together, which response belongs to what, what a killed run repeats."""

import itertools
import json
import weakref

import pytest
import torch
from evaluation.evaluation_parts import BoxGrader, Engine, Problems, Reader, benchmark, problem

from papo.evaluation.run.batches import Shown, cut_batches
from papo.evaluation.run.runner import Runner, sample_prompts
from papo.parallel import Ranks
from papo.storage.responses import ResponseStore, read_responses
from papo.types import PromptGroup, derive_seed
from papo.views import ImageView, Item, View

TABLES = ("responses.jsonl", "problems.jsonl")


class BankView:
    """Two prompts per problem; problem 1 cannot be shown like this."""

    name = "bank"
    seed = 0
    hides = False

    def __call__(self, item, policy, *, num_responses):
        if item.index == 1:
            return ()
        return policy.encode([item.problem, item.problem])


def run(folder, problems, *, engine=None, grader=None, views=None, k=4, budget=300, key="set"):
    """Evaluates with a budget of a few problems per batch; returns the engine."""
    engine = engine or Engine()
    grader = grader or BoxGrader()
    runner = Runner(
        ranks=Ranks(),
        policy=Reader(),
        engine=engine,
        views=views or (ImageView(),),
        store=ResponseStore(folder, picture_side=8),
        num_responses=k,
        max_response_tokens=5,
        tokens_per_batch=budget,
        seed=7,
    )
    runner.run([benchmark(problems, key=key, grader=grader)], lambda what, count: None)
    return engine


def test_every_problem_gets_its_responses_in_order(tmp_path):
    run(tmp_path, Problems(5))
    records = list(read_responses(tmp_path))
    assert [(r.problem_id, r.response_index) for r in records] == [
        (f"p{i}", j) for i in range(5) for j in range(4)
    ]
    for one in records:
        assert one.seed == derive_seed(7, "set", one.problem_id)
        assert one.response.startswith(f"<think>{one.seed} {one.response_index}</think>")
        assert one.correct == ((one.seed + one.response_index) % 3 == 0)
        assert one.reference == one.problem_id[1:]
        assert one.num_tokens == 1 + (one.seed + one.response_index) % 5
        assert one.stop_reason == ("length" if one.num_tokens == 5 else "end")
        assert one.verdicts == {
            "strict": "correct" if one.correct else "wrong",
            "lenient": "correct",
        }


def test_answers_equal_to_the_reference_score_100_per_cent(tmp_path):
    from papo.evaluation.scores import score_responses

    class Oracle(Engine):
        def follow(self, source, version):
            pass

        def sample(self, groups, num_responses, seeds):
            responses = super().sample(groups, num_responses, [0] * len(seeds))
            texts = tuple(
                f"\\boxed{{{group.problem.answer}}}"
                for group in groups
                for _ in range(num_responses)
            )
            return type(responses)(
                ids=responses.ids,
                mask=responses.mask,
                logprobs=responses.logprobs,
                finished=responses.finished,
                texts=texts,
            )

    run(tmp_path, Problems(6), engine=Oracle())
    [one] = score_responses(read_responses(tmp_path), pass_at=(1, 4), bootstrap_seed=0)
    assert one.accuracy.value == one.pass_at[4].value == one.answered == 1.0


def test_a_view_may_leave_problems_out_and_show_several_prompts(tmp_path):
    engine = run(tmp_path, Problems(3), views=(ImageView(), BankView()), budget=10_000)
    records = [r for r in read_responses(tmp_path) if r.view == "bank"]
    assert {r.problem_id for r in records} == {"p0", "p2"}
    assert engine.calls == [(["p0", "p1", "p2"], 4), (["p0", "p0", "p2", "p2"], 2)]
    for one in records:
        mask, draw = one.response_index % 2, one.response_index // 2
        assert one.response.startswith(f"<think>{derive_seed(one.seed, 'prompt', mask)} {draw}<")
    assert [b.num_left_out for b in ResponseStore(tmp_path, picture_side=8).batches] == [0, 1]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("num_prompts", [1, 2, 3, 4])
def test_response_j_answers_prompt_j_modulo_their_number(k, num_prompts):
    class Echo(Engine):
        def follow(self, source, version):
            pass

        def sample(self, groups, num_responses, seeds):
            responses = super().sample(groups, num_responses, seeds)
            texts = tuple(group.problem.id for group in groups for _ in range(num_responses))
            return type(responses)(
                **{
                    name: getattr(responses, name)
                    for name in ("ids", "mask", "logprobs", "finished")
                },
                texts=texts,
            )

    prompts = [Reader().encode([problem(10 * i + v) for v in range(num_prompts)]) for i in range(2)]
    found = sample_prompts(Echo(), prompts, [1, 2], k)
    assert [[sample.text for sample in row] for row in found] == [
        [f"p{10 * i + j % num_prompts}" for j in range(k)] for i in range(2)
    ]


def test_a_problem_that_cannot_be_read_is_counted_and_the_rest_is_done(tmp_path, caplog):
    run(tmp_path, Problems(4, broken=[0, 2]))
    assert {r.problem_id for r in read_responses(tmp_path)} == {"p1", "p3"}
    batches = ResponseStore(tmp_path, picture_side=8).batches
    assert sum(b.num_left_out for b in batches) == 2
    assert sum(b.num_problems for b in batches) == 4
    assert "left out of set: problem 2 is broken" in caplog.text


def test_graders_are_closed_also_after_a_failure(tmp_path):
    grader = BoxGrader()
    run(tmp_path / "a", Problems(2), grader=grader)
    assert grader.closed == 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", Problems(2), grader=grader, engine=Engine(fail_at=0))
    assert grader.closed == 2


@pytest.mark.parametrize("call", range(6))
def test_an_interrupted_evaluation_continues_to_the_same_tables(tmp_path, call):
    views = (ImageView(), BankView())
    whole = run(tmp_path / "whole", Problems(9, broken=[4]), views=views)
    assert len(whole.calls) == 6
    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        run(broken, Problems(9, broken=[4]), views=views, engine=Engine(fail_at=call))
    rest = run(broken, Problems(9, broken=[4]), views=views)
    assert rest.calls == whole.calls[call:]
    for table in TABLES:
        assert (broken / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()


def test_a_finished_evaluation_samples_nothing_more(tmp_path):
    run(tmp_path, Problems(5))
    assert run(tmp_path, Problems(5)).calls == []


def test_draws_depend_on_benchmark_and_problem_alone(tmp_path):
    run(tmp_path / "a", Problems(4), budget=10_000)
    run(tmp_path / "b", Problems(4), budget=1)
    run(tmp_path / "c", Problems(4), key="other")
    texts = {
        name: [r.response for r in read_responses(tmp_path / name)] for name in ("a", "b", "c")
    }
    assert texts["a"] == texts["b"]
    assert not set(texts["a"]) & set(texts["c"])


def test_only_the_problems_of_a_batch_are_read_ahead(tmp_path):
    problems = Problems(40)

    class Watch(Engine):
        def follow(self, source, version):
            pass

        def sample(self, groups, num_responses, seeds):
            first = int(groups[-1].problem.id[1:])
            # The batch itself, and the one that did not fit any more.
            assert len(problems.reads) <= first + 2
            return super().sample(groups, num_responses, seeds)

    engine = run(tmp_path, problems, engine=Watch())
    assert len(engine.calls) > 10


def test_problems_that_are_left_out_are_not_held(tmp_path):
    pictures, most = [], 0

    class Nothing:
        name = "nothing"
        seed = 0
        hides = True

        def __call__(self, item, policy, *, num_responses):
            nonlocal most
            pictures.append(weakref.ref(item.problem.images[0]))
            most = max(most, sum(one() is not None for one in pictures))
            return ()

    class Drawn(Problems):
        def __getitem__(self, index):
            return problem(index)

    run(tmp_path, Drawn(20), views=(Nothing(),))
    assert most <= 3


def shown(length, rows=True):
    group = PromptGroup(
        problem=problem(0),
        prompt_ids=torch.zeros(length, dtype=torch.long),
        position_ids=torch.zeros(3, length, dtype=torch.long),
        next_position=length,
    )
    item = Item(benchmark="set", problems=Problems(1), index=0, problem=problem(0), seed=0)
    return Shown(index=length, item=item, prompts=(group,) if rows else ())


def test_batches_stay_within_the_budget_and_are_as_large_as_it_allows():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 60, (200,), generator=generator).tolist()
    k, limit, budget = 3, 10, 900
    batches = [
        [one.index for one in batch]
        for batch in cut_batches(
            map(shown, lengths), num_responses=k, max_response_tokens=limit, tokens_per_batch=budget
        )
    ]
    assert [length for batch in batches for length in batch] == lengths

    def tokens(batch):
        return len(batch) * k * (max(batch) + limit)

    assert all(tokens(batch) <= budget for batch in batches)
    for batch, following in itertools.pairwise(batches):
        assert tokens([*batch, following[0]]) > budget


def test_a_problem_above_the_budget_is_sampled_alone():
    batches = cut_batches(
        map(shown, [5, 500, 5]), num_responses=2, max_response_tokens=5, tokens_per_batch=100
    )
    assert [[one.index for one in batch] for batch in batches] == [[5], [500], [5]]


def test_the_cut_of_what_follows_does_not_depend_on_what_came_before():
    lengths = [7, 30, 12, 50, 3, 3, 3, 41, 8, 9, 22]
    settings = {"num_responses": 2, "max_response_tokens": 5, "tokens_per_batch": 160}
    whole = [[one.index for one in b] for b in cut_batches(map(shown, lengths), **settings)]
    done = 0
    for number, batch in enumerate(whole):
        rest = [
            [one.index for one in b] for b in cut_batches(map(shown, lengths[done:]), **settings)
        ]
        assert rest == whole[number:]
        done += len(batch)


def test_views_have_the_shape_that_is_asked_of_them():
    assert isinstance(ImageView(), View)
    assert isinstance(BankView(), View)


def test_the_kept_problems_are_those_of_the_benchmark(tmp_path):
    run(tmp_path, Problems(3), views=(ImageView(), BankView()))
    lines = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    assert [line["problem_id"] for line in lines] == ["p0", "p1", "p2"]
    assert all((tmp_path / image).is_file() for line in lines for image in line["images"])


@pytest.mark.parametrize("bad", ["../up", "", "a b", ".hidden", "a/b"])
def test_the_key_of_a_benchmark_is_a_file_name(bad):
    with pytest.raises(ValueError, match="key of a benchmark"):
        benchmark(Problems(1), key=bad)
