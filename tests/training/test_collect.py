"""Act, judge, look again: dynamic sampling, seeds, views, and how a batch is cut."""

import statistics

import pytest
import torch
from lab_module import NUM_RESPONSES, lab_module, lab_problems, reward_by_row

from papo.training import PromptStream, trim


class ScriptedReward:
    """Makes the responses to the n-th graded prompt all wrong, all right, or mixed."""

    def __init__(self, script):
        self.script = iter(script)
        self.problems = []

    def __call__(self, problems, texts):
        from papo.types import Rewards

        rows = []
        for start in range(0, len(problems), NUM_RESPONSES):
            self.problems.append(problems[start].id)
            kind = next(self.script)
            rows += {"right": [1.0] * 4, "wrong": [0.0] * 4, "mixed": [1.0, 0.0, 0.0, 1.0]}[kind]
        total = torch.tensor(rows)
        return Rewards(total=total, correct=total > 0.5, timeouts=1)


def masked(group):
    """The patches that the masked view shows."""
    (shown,) = group.shown_in("masked")
    return shown.patches


def collector(tmp_path, **settings):
    return lab_module(tmp_path, **settings).collector


def test_without_dynamic_sampling_uniform_groups_stay(tmp_path):
    reward = ScriptedReward(["right", "wrong", "mixed", "right"])
    rollout = collector(tmp_path, reward=reward).collect(0, 0, progress=0.0)
    assert (rollout.prompts_drawn, rollout.resample_rounds, rollout.groups_dropped) == (4, 0, 0)
    assert rollout.batch.advantages[:, 0].reshape(4, 4).abs().sum(dim=1).gt(0.1).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_uniform_groups_are_replaced_by_further_prompts(tmp_path):
    reward = ScriptedReward(["right", "mixed", "wrong", "mixed", "wrong", "mixed", "mixed"])
    rollout = collector(tmp_path, reward=reward, max_resample=5).collect(0, 0, progress=0.0)
    assert (rollout.prompts_drawn, rollout.resample_rounds, rollout.groups_dropped) == (7, 2, 3)
    kept = [group.problem.id for group in rollout.draft.groups]
    assert kept == [reward.problems[i] for i in (1, 3, 5, 6)]
    assert rollout.batch.correct.reshape(4, 4).float().mean(dim=1).tolist() == [0.5] * 4
    assert rollout.timeouts == 3
    assert rollout.drawn_accuracy == pytest.approx((4 * 2 + 4) / 28)


def test_after_the_last_round_the_batch_keeps_its_size(tmp_path):
    reward = ScriptedReward(["mixed", "wrong", "wrong", "wrong"] + ["right"] * 9)
    rollout = collector(tmp_path, reward=reward, max_resample=2).collect(0, 0, progress=0.0)
    assert len(rollout.draft.groups) == 4
    assert (rollout.prompts_drawn, rollout.resample_rounds, rollout.groups_dropped) == (10, 2, 6)
    assert int(rollout.batch.advantages[:, 0].ne(0).sum()) == NUM_RESPONSES


def test_a_mean_accuracy_at_either_bound_is_replaced(tmp_path):
    # Half of a mixed group is right: neither above one half nor below it.
    for bounds in (
        {"keep_accuracy_above": 0.01, "keep_accuracy_below": 0.5},
        {"keep_accuracy_above": 0.5, "keep_accuracy_below": 0.99},
    ):
        reward = ScriptedReward(["mixed"] * 8)
        rollout = collector(tmp_path, reward=reward, max_resample=1, **bounds).collect(
            0, 0, progress=0.0
        )
        assert (rollout.groups_dropped, rollout.resample_rounds) == (4, 1), bounds


def format_counts_too(problems, texts):
    """The total says what `correct` does not: half of the right answers are badly formatted."""
    from papo.types import Rewards

    formatted = (torch.arange(len(texts)) % 2).float()
    correct = torch.arange(len(texts)) % NUM_RESPONSES < 2
    return Rewards(total=0.9 * correct.float() + 0.1 * formatted, correct=correct)


@pytest.mark.parametrize("epsilon", [1e-6, 0.3])
def test_advantages_are_those_of_the_total_reward_and_the_epsilon_of_the_settings(
    tmp_path, epsilon
):
    made = collector(tmp_path, reward=format_counts_too, advantage_epsilon=epsilon)
    batch = made.collect(0, 0, progress=0.0).batch
    # Right, right and formatted, wrong, wrong and formatted; as in all groups of four.
    group = [0.9, 1.0, 0.0, 0.1]
    mean, deviation = statistics.fmean(group), statistics.stdev(group)
    expected = [(total - mean) / (deviation + epsilon) for total in group]
    torch.testing.assert_close(
        batch.advantages[:, 0], torch.tensor(expected * 4), rtol=1e-5, atol=0, check_dtype=False
    )
    assert batch.correct.tolist() == [True, True, False, False] * 4


def test_every_draw_has_a_seed_of_its_own_over_rounds_and_rollouts(tmp_path):
    mask_seeds, sampling_seeds = [], []

    def black(group, generator, process_images):
        mask_seeds.append(generator.initial_seed())
        return torch.zeros_like(group.patches)

    made = collector(
        tmp_path,
        image_mask=black,
        max_resample=2,
        reward=ScriptedReward((["wrong"] * 8 + ["mixed"] * 4) * 2),
    )
    sample = made.engine.sample

    def recorded(groups, num_responses, seeds):
        sampling_seeds.extend(seeds)
        return sample(groups, num_responses, seeds)

    made.engine.sample = recorded
    for step in (0, 1):
        assert made.collect(step, 0, progress=0.0).resample_rounds == 2
    assert len(set(mask_seeds)) == len(mask_seeds) == 24
    assert len(set(sampling_seeds)) == len(sampling_seeds) == 24


def test_resampled_groups_continue_the_stream(tmp_path):
    stream = PromptStream(source=lab_problems(), seed=1)
    reward = ScriptedReward(["wrong"] * 4 + ["mixed"] * 4)
    collector(tmp_path, reward=reward, max_resample=1).collect(3, 20, progress=0.0)
    assert reward.problems == [problem.id for problem in stream.take(20, 8)]


def test_rows_belong_to_their_prompts_after_replacement(tmp_path):
    reward = ScriptedReward(["right", "mixed", "wrong", "mixed", "mixed", "mixed"])
    made = collector(tmp_path, reward=reward, max_resample=5)
    rollout = made.collect(0, 0, progress=0.0)
    batch = rollout.batch
    scores = made.policy.score(batch.groups, batch.response_ids, batch.response_mask)
    torch.testing.assert_close(
        scores["image"].logprobs.detach(), batch.old_logprobs, atol=1e-5, rtol=0
    )


def test_equal_counters_give_equal_rollouts_and_others_do_not(tmp_path):
    first, again = (
        collector(tmp_path).collect(2, 8, progress=0.0),
        collector(tmp_path).collect(2, 8, progress=0.0),
    )
    assert first.draft.responses.texts == again.draft.responses.texts
    assert torch.equal(first.batch.old_logprobs, again.batch.old_logprobs)
    for got, expected in zip(first.draft.groups, again.draft.groups, strict=True):
        assert torch.equal(masked(got), masked(expected))
    later = collector(tmp_path).collect(3, 8, progress=0.0)
    assert later.draft.responses.texts != first.draft.responses.texts
    assert any(
        not torch.equal(masked(a), masked(b))
        for a, b in zip(first.draft.groups, later.draft.groups, strict=True)
    )


def test_every_prompt_has_its_own_mask_and_both_views(tmp_path):
    groups = collector(tmp_path).collect(0, 0, progress=0.0).draft.groups
    hidden = [(masked(g) != g.patches).any(dim=1) for g in groups]
    assert all(mask.any() for mask in hidden)
    assert any(not torch.equal(hidden[0], mask) for mask in hidden[1:])


def no_op_mask(group, generator, process_images):
    return group.patches.clone()


def test_a_mask_that_hides_nothing_stops_the_run(tmp_path):
    with pytest.raises(ValueError, match=r"masking\.ratio.*masking="):
        collector(tmp_path, image_mask=no_op_mask).collect(0, 0, progress=0.0)


def test_a_mask_may_spare_some_pictures(tmp_path):
    seen = []

    def every_other(group, generator, process_images):
        seen.append(group)
        return group.patches.clone() if len(seen) % 2 else torch.zeros_like(group.patches)

    assert collector(tmp_path, image_mask=every_other).collect(0, 0, progress=0.0).changed == {
        "masked": 0.5
    }


def test_a_ratio_of_zero_hides_nothing_on_purpose(tmp_path):
    from papo.masking import RandomPatchMask

    mask = RandomPatchMask(ratio=0.0, grid="patch", raw_square_pixels=14, seed=0)
    assert collector(tmp_path, image_mask=mask).collect(0, 0, progress=0.0).changed == {
        "masked": 0.0
    }


def test_what_was_hidden_is_counted_on_the_patches(tmp_path):
    from papo.training.metrics import rollout_metrics

    rollout = collector(tmp_path).collect(0, 0, progress=0.0)
    changed = [(masked(g) != g.patches).any(dim=1).float() for g in rollout.draft.groups]
    expected = float(torch.stack(changed).mean())
    assert 0.3 < expected < 0.9
    assert rollout_metrics(rollout)["masking/masked_fraction"] == pytest.approx(expected)


def test_nothing_is_masked_where_nobody_looks(tmp_path):
    from papo.training.metrics import rollout_metrics

    off = {"gamma": 0.0, "eta_masked": 0.0, "beta": 0.0}
    rollout = collector(tmp_path, **off).collect(0, 0, progress=0.0)
    assert "masking/masked_fraction" not in rollout_metrics(rollout)
    assert all(group.views == {} for group in rollout.draft.groups)
    assert rollout.batch.old_views == {}
    assert rollout.batch.ref_logprobs is None


def test_a_prompt_without_image_has_no_perception_kl(tmp_path):
    from papo.types import Problem

    class Mixed:
        def __len__(self):
            return 4

        def __getitem__(self, index):
            pictured = lab_problems()[index]
            if index % 2:
                return pictured
            question = pictured.question.replace("<image>", "").strip()
            return Problem(
                id=str(index),
                question=question,
                answer=pictured.answer,
                images=(),
                source="text",
                truth=pictured.truth,
            )

    module = lab_module(tmp_path, source=Mixed(), masked_policy="current", num_rollouts=1)
    batch = module.collector.collect(0, 0, progress=0.0).batch
    scores = module._score(batch)
    pictured = torch.tensor([g.patches is not None for g in batch.groups]).repeat_interleave(4)
    difference = (scores["image"].logprobs - scores["masked"].logprobs).abs().sum(dim=1)
    assert pictured.sum() == 8
    assert torch.equal(difference[~pictured], torch.zeros(8))
    assert bool((difference[pictured] > 0).all())


def test_the_old_masked_logprobs_are_those_of_the_masked_view(tmp_path):
    made = collector(tmp_path, masked_policy="old", prompts_per_microbatch=1)
    batch = made.collect(0, 0, progress=0.0).batch
    expected = made.policy.score(
        batch.groups, batch.response_ids, batch.response_mask, views=("masked",)
    )["masked"].logprobs
    torch.testing.assert_close(
        batch.old_views["masked"].logprobs, expected.detach(), atol=1e-5, rtol=0
    )
    assert float((batch.old_views["masked"].logprobs - batch.old_logprobs).abs().max()) > 1e-3


def test_parts_of_a_batch_are_whole_groups_without_common_padding(tmp_path):
    batch = (
        collector(tmp_path, reward=reward_by_row(NUM_RESPONSES)).collect(0, 0, progress=0.0).batch
    )
    parts = [trim(batch.select_groups(i, i + 1)) for i in range(len(batch.groups))]
    assert [part.num_rollouts for part in parts] == [NUM_RESPONSES] * 4
    assert sum(part.num_tokens for part in parts) == batch.num_tokens
    for part in parts:
        assert bool(part.response_mask[:, -1].any())
        assert part.old_logprobs.shape == part.response_mask.shape


def test_the_stream_shows_every_problem_once_per_epoch_in_another_order():
    source = lab_problems(size=7)
    stream = PromptStream(source=source, seed=1)
    first, second = ([p.id for p in stream.take(epoch * 7, 7)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == sorted(source[i].id for i in range(7))
    assert first != second
    assert [p.id for p in PromptStream(source=source, seed=1).take(5, 4)] == first[5:] + second[:2]
    assert [p.id for p in PromptStream(source=source, seed=2).take(0, 7)] != first


def test_a_stream_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no problem"):
        PromptStream(source=[], seed=1)
