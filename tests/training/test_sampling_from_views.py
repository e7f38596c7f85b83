"""Part of a group's responses are sampled from a view, and scored, like the others, given the image."""

import pytest
import torch
from hydra import compose, initialize_config_dir
from lab_module import NUM_RESPONSES, lab_module, reward_by_row, train

from papo.commands import front_door
from papo.masking import DiffusionNoiseMask
from papo.training import check_sampled_from
from papo.training.sampling import sample_from
from papo.types import derive_seed, derive_seeds
from papo.views import MaskedView

COUNTS = {"noised": 2}


def noised(**settings):
    return MaskedView(mask=DiffusionNoiseMask(noise_step=700, seed=0), **settings)


def module_of(tmp_path, counts=COUNTS, view=None, **settings):
    views = {"noised": view or noised()}
    return lab_module(
        tmp_path,
        views=views,
        sampled_from=counts,
        reward=reward_by_row(NUM_RESPONSES),
        gamma=0.0,
        eta_masked=0.0,
        **settings,
    )


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    module = module_of(tmp_path_factory.mktemp("collected"))
    return module.collector, module.collector.collect(0, 0, progress=0.0)


def of_view(values):
    """The rows of a group that came from the view, or those that did not, of a tensor by rows."""
    grouped = values.reshape(-1, NUM_RESPONSES, *values.shape[1:])
    return grouped[:, :2], grouped[:, 2:]


def test_the_first_responses_are_those_to_the_image_and_the_last_those_to_the_view(collected):
    collector, rollout = collected
    groups, engine = rollout.draft.groups, collector.engine
    seeds = derive_seeds(derive_seed(collector.seed, "rollout", 0, 0), len(groups))
    clean = engine.sample(groups, 2, seeds).texts
    shown = [one for group in groups for one in group.shown_in("noised")]
    noisy = engine.sample(shown, 2, [derive_seed(seed, "view", "noised") for seed in seeds]).texts
    texts = rollout.draft.responses.texts
    for place in range(len(groups)):
        own = texts[place * NUM_RESPONSES : (place + 1) * NUM_RESPONSES]
        assert own[:2] == clean[2 * place : 2 * place + 2]
        assert own[2:] == noisy[2 * place : 2 * place + 2]


def test_all_are_scored_given_the_image_and_what_was_said_of_the_view_is_kept(collected):
    collector, rollout = collected
    batch = rollout.batch
    with torch.no_grad():
        scores = collector.policy.score(
            batch.groups, batch.response_ids, batch.response_mask, views=("image", "noised")
        )
    torch.testing.assert_close(batch.old_logprobs, scores["image"].logprobs, atol=1e-5, rtol=0)
    clean, noisy = of_view(batch.behaviour_logprobs)
    of_image, _ = of_view(scores["image"].logprobs)
    _, of_noise = of_view(scores["noised"].logprobs)
    torch.testing.assert_close(clean, of_image, atol=1e-5, rtol=0)
    torch.testing.assert_close(noisy, of_noise, atol=1e-5, rtol=0)
    _, old = of_view(batch.old_logprobs)
    assert float((noisy - old).abs().max()) > 1e-3


def test_what_is_sampled_at_a_prompt_depends_on_its_place_alone(collected):
    """So ranks that share the prompts, and a run that goes on, sample what one process did."""
    collector, rollout = collected
    groups = rollout.draft.groups
    seeds = [11, 12, 13, 14]
    together = sample_from(collector.engine, groups, NUM_RESPONSES, seeds, counts=COUNTS)
    alone = sample_from(collector.engine, groups[2:3], NUM_RESPONSES, seeds[2:3], counts=COUNTS)
    assert together.texts[2 * NUM_RESPONSES : 3 * NUM_RESPONSES] == alone.texts


def test_equal_counters_give_equal_rollouts(tmp_path, collected):
    _, rollout = collected
    again = module_of(tmp_path).collector.collect(0, 0, progress=0.0)
    assert again.draft.responses.texts == rollout.draft.responses.texts
    assert torch.equal(again.batch.old_logprobs, rollout.batch.old_logprobs)


@pytest.mark.parametrize("cap", [None, 2.0])
def test_a_run_trains_on_them_with_and_without_the_correction(cap, tmp_path):
    settings = {"num_rollouts": 1, "eta_full": 0.0, "beta": 0.0, "importance_cap": cap}
    module = module_of(tmp_path, **settings)
    before = {n: p.detach().clone() for n, p in module.policy_module.policy.named_parameters()}
    after = train(module, tmp_path)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert ("policy/importance_capped" in module.last_step.metrics) == (cap is not None)


def test_a_view_per_response_is_refused(tmp_path):
    module = module_of(tmp_path, view=noised(per="response"))
    with pytest.raises(ValueError, match=r"objective.views.noised.per=prompt"):
        module.collector.collect(0, 0, progress=0.0)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"other": 0.5}, r"objective.sampled_from.other samples from a view; got masked, noised"),
        ({"noised": 0.3}, r"sampled_from.noised=0.3 of rollout.num_responses=8.*got 2.4"),
        ({"noised": 1.0}, r"at least one and not all; got 8"),
        ({"noised": 0.0}, r"got 0"),
        ({"noised": 0.5, "masked": 0.5}, r"at least one response is sampled from the image"),
    ],
)
def test_impossible_shares_are_refused(shares, said):
    with pytest.raises(ValueError, match=said):
        check_sampled_from(shares, {"masked", "noised"}, num_responses=8)


def test_shares_become_numbers_of_responses():
    views = {"masked", "noised"}
    assert check_sampled_from({"noised": 0.5}, views, num_responses=12) == {"noised": 6}
    shares = {"masked": 0.25, "noised": 0.25}
    assert check_sampled_from(shares, views, num_responses=8) == {"masked": 2, "noised": 2}


def plan_of(*overrides):
    from papo.commands.training.plan import make_plan

    with initialize_config_dir(config_dir=front_door.CONFIG_FOLDER, version_base="1.3"):
        return make_plan(compose("train", overrides=["objective=noisyrollout", *overrides]))


def test_the_command_line_reads_it_before_a_model_is_loaded():
    plan = plan_of("objective.importance_cap=2.0")
    assert plan.sampled_from == {"noised": 4}
    with pytest.raises(ValueError, match=r"rollout.num_responses=5.*got 2.5"):
        plan_of("rollout=shared_prefill")
    with pytest.raises(ValueError, match=r"got rollout=server. Set rollout=shared_prefill"):
        plan_of("rollout=server", "rollout.num_responses=4")
