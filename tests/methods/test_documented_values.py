"""What docs/methods.md promises of single methods: degenerate responses, settings that contradict, and no cut into passes."""

from dataclasses import replace

import pytest
import torch
from lab_module import lab_module, reward_by_row
from methods.credit_cases import blocks_of, config_of, credit_of, given, objective_of, rollout

from papo.commands import building
from papo.methods import TPAE, VPPO
from papo.rewards import PartlyLabelled
from papo.types import IMAGE, Rewards


def test_pgpo_leaves_a_response_of_one_token_or_of_equal_tokens_its_advantages():
    credit = credit_of("pgpo-pgpo")
    one = rollout(credit, lengths=torch.ones(16, dtype=torch.long))
    torch.testing.assert_close(given(credit, one), one.advantages * one.response_mask)
    equal = rollout(credit)
    same = torch.full_like(equal.old_logprobs, 0.7).where(equal.response_mask, 0.0)
    seen = replace(equal.old_views[credit.view], kl_from_image=same)
    equal = replace(equal, old_views={credit.view: seen})
    torch.testing.assert_close(given(credit, equal), equal.advantages * equal.response_mask)


def test_pgpo_keeps_the_mass_of_every_response():
    credit = credit_of("pgpo-pgpo")
    batch = rollout(credit)
    torch.testing.assert_close(
        given(credit, batch).sum(1), (batch.advantages * batch.response_mask).sum(1)
    )


def test_vppo_compares_no_response_with_itself_alone():
    alone = VPPO(view="masked", top_share=1.0, least=0.5, scope="response")
    batch = rollout(alone)
    torch.testing.assert_close(given(alone, batch), batch.advantages * batch.response_mask)


def test_vppo_factors_have_a_mean_of_one_in_their_block():
    credit = VPPO(view="masked", top_share=1.0, least=0.5)
    batch = rollout(credit)
    ones = replace(batch, advantages=torch.ones_like(batch.advantages))
    factors = given(credit, ones)[:, 0]
    for rows in blocks_of(batch).rows("minibatch"):
        assert float(factors[rows].mean()) == pytest.approx(1.0, abs=1e-6)
        assert float(factors[rows].min()) == pytest.approx(0.5)


def test_vppo_without_a_choice_of_tokens_weighs_responses_alone():
    """As its code does with both filters off; before, no token learned."""
    chosen, all_of_them = (VPPO(view="masked", top_share=share, least=0.5) for share in (None, 1.0))
    batch = rollout(chosen)
    assert given(chosen, batch).any()
    torch.testing.assert_close(given(chosen, batch), given(all_of_them, batch))


def test_vepo_averages_over_the_selected_tokens_of_a_minibatch():
    credit = credit_of("vepo-vepo")
    batch = rollout(credit)
    ones = replace(batch, advantages=torch.ones_like(batch.advantages))
    weights = given(credit, ones)
    for rows in blocks_of(batch).rows("minibatch"):
        assert float(weights[rows].sum()) == pytest.approx(int(batch.response_mask[rows].sum()))


def test_vepo_refuses_a_mean_over_responses_and_names_the_key():
    config = config_of("vepo", "official", "objective.average=sequence")
    with pytest.raises(
        ValueError, match=r"objective\.terms\.surrogate\.average must be .*token; got"
    ):
        building.make_objective(config)


def test_vepo_takes_the_noise_of_its_code_by_the_override_that_the_page_names():
    from papo.commands.training.plan import make_views
    from papo.masking import ProcessedNoiseMask

    plain, codes = (
        make_views(config_of("vepo", "official", *words), objective_of("vepo"))["noised"]
        for words in ((), ("+masking@objective.views.noised.mask=noise_processed",))
    )
    assert not isinstance(plain.mask, ProcessedNoiseMask)
    assert (type(codes.mask), codes.mask.noise_std) == (ProcessedNoiseMask, 2.0)


def test_tor_weighs_exactly_its_shares_where_most_entropies_are_zero():
    credit = credit_of("tor-tor")
    batch = rollout(credit)
    flat = torch.zeros_like(batch.old_logprobs)
    image = replace(batch.old_views[IMAGE], nucleus_entropy=flat)
    ones = replace(
        batch,
        advantages=torch.ones_like(batch.advantages),
        old_views={**batch.old_views, IMAGE: image},
    )
    weights = given(credit, ones)
    assert int((weights == 1.0).sum()) == -(-3 * batch.num_tokens // 10)
    # Not the first responses alone.
    assert (weights[8:] == 1.0).any()


def test_pivot_never_pushes_a_right_answer_down_or_a_wrong_one_up():
    credit = replace(credit_of("pivot-pivot"), beta=50.0)
    batch = rollout(credit)
    after = given(credit, batch)
    assert (after[batch.correct] >= 0).all()
    assert (after[~batch.correct] <= 0).all()
    assert (after == 0).any()


def test_tpae_pushes_down_tokens_of_right_answers_alone_and_leaves_few_samples():
    credit = TPAE(view="masked", boundary=0.5)
    right = rollout(credit, rewards=torch.ones(16, dtype=torch.float64))
    after = given(credit, right)
    assert after.min() < 0
    assert after.min() >= -0.5
    assert after.max() == 0
    # No id stands more than twice.
    rare = replace(right, response_ids=torch.arange(16 * 9).reshape(16, 9) // 2)
    assert not given(replace(credit, boundary=0.0), rare).any()


def test_tpae_finds_no_distance_where_right_answers_are_two_points_on_a_line():
    """Their covariance is singular but for rounding, which had squared distances below 0."""
    credit = TPAE(view="masked", boundary=0.0)
    generator = torch.Generator().manual_seed(0)
    right = torch.ones(16, dtype=torch.float64)
    batch = rollout(credit, rewards=right, lengths=torch.full((16,), 9))
    of_view, of_image = batch.old_views["masked"], batch.old_views[IMAGE]
    for _ in range(200):
        spots = torch.rand(2, 2, generator=generator, dtype=torch.float64) * 5
        # The first and third response of a prompt are at one point, the others at another.
        place = torch.arange(16)[:, None].expand(16, 9) % 2
        scores = {
            "masked": replace(of_view, kl_from_image=spots[:, 0][place]),
            IMAGE: replace(of_image, entropy=spots[:, 1][place]),
        }
        ids = torch.zeros(16, 9, dtype=torch.long)
        assert not given(credit, replace(batch, old_views=scores, response_ids=ids)).any()


@pytest.mark.parametrize("objective", ["evidence_rl", "tpae", "pivot"])
def test_verdicts_on_answers_that_nobody_knows_change_no_advantage(objective, tmp_path):
    from papo.commands.training.plan import make_views

    made = objective_of(objective)
    views = make_views(config_of(objective), made)
    assert made.credits

    def credited(*, flips):
        """Half of the problems have an answer; on those of the others the verdicts are turned round."""

        def reward(problems, texts):
            hidden = torch.tensor([not labelled.is_labelled(problem) for problem in problems])
            right = torch.arange(len(texts)) % 3 == 0
            right = right ^ (hidden & flips)
            return Rewards(total=right.float(), correct=right)

        labelled = PartlyLabelled(reward=reward, labelled_share=0.5)
        module = lab_module(tmp_path, objective=made, views=views, reward=labelled)
        return module.collector.collect(0, 0, progress=0.0)

    rollout, other = credited(flips=False), credited(flips=True)
    hidden = rollout.draft.rewards.components["labelled"] == 0
    assert 0 < hidden.sum() < len(hidden)
    assert not torch.equal(rollout.draft.rewards.correct, other.draft.rewards.correct)
    assert torch.equal(rollout.batch.advantages, other.batch.advantages)
    assert rollout.batch.advantages[~hidden].any()


@pytest.mark.parametrize("objective", ["vppo", "vepo"])
def test_the_cut_into_passes_changes_no_advantage(objective, tmp_path):
    from papo.commands.training.plan import make_views

    made = objective_of(objective)
    views = make_views(config_of(objective), made)

    def advantages(prompts_per_microbatch):
        module = lab_module(
            tmp_path,
            objective=made,
            views=views,
            reward=reward_by_row(4),
            prompts_per_minibatch=2,
            prompts_per_microbatch=prompts_per_microbatch,
        )
        return module.collector.collect(0, 0, progress=0.0).batch.advantages

    whole, cut = advantages(2), advantages(1)
    torch.testing.assert_close(cut, whole, rtol=1e-3, atol=1e-3)
    assert (whole == 0).any()
    assert whole.abs().max() > 0.5
