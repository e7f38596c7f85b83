import itertools
import math
from dataclasses import replace

import pytest
import torch
from objective_checks import (
    FIDELITIES,
    ToyPolicy,
    by_view,
    composed,
    evaluate,
    flat,
    make_batch,
    make_objective,
    masked_old,
    objective_settings,
    with_masked_old,
)

from papo.objective import NonFiniteTermError, Objective, SettingError, ViewKL
from papo.types import IMAGE, RolloutBatch


def key_of(setting):
    """Where a setting stands: the objective's own, or what the modes of fidelity decide."""
    return f"{'objective' if setting in composed('official').objective else 'fidelity'}.{setting}"


def build(fidelity="official", objective="papo_g", **settings):
    """The composed configuration with some settings replaced."""
    overrides = [
        f"{key_of(key)}={'null' if value is None else value}" for key, value in settings.items()
    ]
    return make_objective(fidelity, objective, overrides)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("gamma", -0.02),
        ("beta", -0.01),
        ("eta_full", -0.05),
        ("eta_masked", float("nan")),
        ("gamma", float("inf")),
        ("count_epsilon", -1e-8),
        ("clip_low", 0.0),
        ("clip_low", 1.0),
        ("clip_high", -0.3),
        ("dual_clip", 1.0),
        ("importance_cap", 0.0),
        ("kl_log_ratio_max", 0.0),
        ("perception_kl_max", -1.0),
        ("ref_kl_max", 0.0),
        ("perception_top_p", 1.0),
        ("average", "mean"),
        ("entropy_average", "tokens"),
        ("masked_policy", "new"),
        ("entropy", "none"),
        ("perception_estimator", "k4"),
        ("ref_estimator", "exact"),
        ("gamma_anneal_until", 1.5),
        ("gamma_anneal_until", 0.0),
        ("gate", "wrong"),
    ],
)
def test_an_impossible_setting_names_its_key_and_what_was_got(key, value):
    wanted = key_of(key).replace(".", r"\.")
    with pytest.raises(ValueError, match=rf"^{wanted} .*got {value!r}"):
        build(**{key: value})


def test_a_setting_that_is_refused_without_a_configuration_is_named_plainly():
    from papo.objective import ViewEntropy

    with pytest.raises(SettingError, match=r"^weight is a weight, 0 \(off\) or positive; got -1"):
        ViewEntropy(weight=-1, estimator="sampled")


def test_an_objective_without_a_weight_is_refused():
    with pytest.raises(ValueError, match="at least one term with a weight; got none"):
        Objective(terms={}, count_epsilon=0.0)


def test_the_exact_kl_of_the_image_from_itself_is_refused():
    with pytest.raises(SettingError, match="got view=image"):
        ViewKL(weight=0.1, view="image", policy="current", estimator="exact")


@pytest.mark.parametrize("masked_policy", ["old", "current_detached"])
def test_the_exact_perception_kl_needs_the_live_masked_view(masked_policy):
    with pytest.raises(ValueError, match=r"fidelity\.masked_policy=current"):
        build("exact", masked_policy=masked_policy)


def test_the_exact_masked_entropy_needs_a_distribution_the_rollout_did_not_keep():
    with pytest.raises(ValueError, match="not its distribution"):
        build("official", entropy="exact", eta_masked=0.03)
    assert build("official", entropy="exact", eta_masked=0.0).needs.full_vocabulary is False


def test_a_contradiction_of_terms_that_are_off_does_no_harm():
    off = build("exact", gamma=0.0, masked_policy="old")
    assert not off.needs.views


def test_a_misspelt_key_fails_at_once():
    with pytest.raises(Exception, match="gama"):
        make_objective("official", "papo_g", ("objective.gama=1",))


def test_an_impossible_setting_from_the_command_line_says_why():
    with pytest.raises(ValueError, match=r"objective\.gamma is a weight"):
        make_objective("official", "papo_g", ("objective.gamma=-1",))


@pytest.mark.parametrize(
    ("objective", "fidelity"),
    list(itertools.product(["grpo", "dapo", "papo_g", "papo_d"], FIDELITIES)),
)
def test_an_objective_asks_only_for_what_it_reads(objective, fidelity):
    built = make_objective(fidelity, objective)
    perceptive = objective.startswith("papo")
    assert built.needs.reference == (objective in ("grpo", "papo_g"))
    official = perceptive and fidelity == "official"
    assert built.needs.old_views == (("masked",) if official else ())
    assert built.needs.live_views == (("masked",) if perceptive and not official else ())
    assert built.needs.full_vocabulary == (perceptive and fidelity == "exact")


def test_the_published_recipes_are_what_the_files_say():
    recipes = {
        name: objective_settings("official", name) for name in ("grpo", "dapo", "papo_g", "papo_d")
    }
    keys = ("gamma", "eta_full", "eta_masked", "beta", "clip_low", "clip_high", "dual_clip")
    assert {name: tuple(getattr(r, k) for k in keys) for name, r in recipes.items()} == {
        "grpo": (0.0, 0.0, 0.0, 0.01, 0.2, 0.3, 3.0),
        "papo_g": (0.02, 0.0, 0.0, 0.01, 0.2, 0.3, 3.0),
        "dapo": (0.0, 0.0, 0.0, 0.0, 0.2, 0.28, 3.0),
        "papo_d": (0.01, 0.03, 0.03, 0.0, 0.2, 0.28, 3.0),
    }


@pytest.mark.parametrize("fidelity", FIDELITIES)
def test_dapo_is_a_token_mean_in_every_mode(fidelity):
    def averages(objective):
        return {term.average for term in make_objective(fidelity, objective).terms.values()}

    assert averages("papo_d") == averages("dapo") == {"token"}
    assert averages("papo_g") == {"token" if fidelity == "official" else "sequence"}


def test_a_linear_schedule_fades_gamma_and_both_etas_together():
    objective = build(gamma_anneal_until=0.5, eta_full=0.05, eta_masked=0.04)
    assert objective.weights(0.25) == {
        "surrogate": 1.0,
        "kl_ref": 0.01,
        "perception_kl": -0.01,
        "entropy": 0.025,
        "masked_entropy": 0.02,
    }
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    faded = evaluate(objective, policy, batch, progress=0.8)["total"]
    grpo = evaluate(build(objective="grpo"), policy, batch)["total"]
    torch.testing.assert_close(faded, grpo, rtol=0, atol=0)


def image_alone(policy, batch):
    return {IMAGE: policy.score(batch.response_ids, batch.response_mask)[IMAGE]}


def test_terms_of_weight_zero_are_absent_without_their_inputs_and_detached_with_them():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    off = build(objective="papo_d", gamma=0.0, eta_full=0.0, eta_masked=0.0)
    scores = image_alone(policy, batch)
    bare = replace(with_masked_old(batch, None), ref_logprobs=None)
    assert set(off(bare, scores, minibatch=bare, progress=0.0)) == {
        "surrogate",
        "entropy",
        "total",
    }
    terms = off(batch, scores, minibatch=batch, progress=0.0)
    assert set(terms) == {
        "surrogate", "kl_ref", "perception_kl", "entropy", "masked_entropy", "total",
    }  # fmt: skip
    assert [name for name, term in terms.items() if term.requires_grad] == ["surrogate", "total"]


@pytest.mark.parametrize(
    ("fidelity", "missing", "named"),
    [
        ("official", "ref_logprobs", r"batch\.ref_logprobs"),
        ("official", "masked", "rollout policy's logprobs given the view 'masked'"),
        ("paper", None, "current policy's logprobs given the view 'masked'"),
        ("exact", None, "current policy's kl_from_image given the view 'masked'"),
    ],
)
def test_a_weighted_term_without_its_input_names_it(fidelity, missing, named):
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = image_alone(policy, batch)
    partial = with_masked_old(batch, None) if missing == "masked" else batch
    if missing == "ref_logprobs":
        partial = replace(batch, ref_logprobs=None)
    with pytest.raises(ValueError, match=named):
        build(fidelity)(partial, scores, minibatch=partial, progress=0.0)


def corrected_surrogate(cap, engine=0.25):
    """Of one token with advantage 1, and the gradient at its log-probability: pi = pi_old = 1/2."""
    logprobs = torch.tensor([[-math.log(2)]], dtype=torch.float64, requires_grad=True)
    batch = RolloutBatch(
        num_responses=1,
        response_mask=torch.ones(1, 1, dtype=torch.bool),
        old_logprobs=logprobs.detach(),
        behaviour_logprobs=torch.tensor([[math.log(engine)]], dtype=torch.float64),
        advantages=torch.ones(1, 1, dtype=torch.float64),
        correct=torch.tensor([True]),
    )
    objective = build("paper", objective="dapo", importance_cap=cap)
    scores = by_view(logprobs=logprobs)
    term = objective(batch, scores, minibatch=batch, progress=0.0)["surrogate"]
    [gradient] = torch.autograd.grad(term, logprobs)
    capped = objective.diagnostics(batch, scores, batch).get("importance_capped")
    return term.item(), gradient.item(), None if capped is None else capped.item()


def test_the_correction_by_hand():
    # pi = pi_old = 1/2, the engine drew the token with 1/4: it should have come twice as often. The surrogate
    # is -rho A = -1, times min(2, cap); its gradient at log pi is the same, since the weight is a constant.
    for cap, expected, capped in ((3.0, -2.0, 0.0), (1.5, -1.5, 1.0), (None, -1.0, None)):
        term, gradient, share = corrected_surrogate(cap)
        assert term == pytest.approx(expected, rel=1e-7)
        assert gradient == pytest.approx(expected, rel=1e-7)
        assert share == (None if capped is None else pytest.approx(capped, abs=1e-7))
    # The engine draws it twice as often: half the weight, and no floor.
    assert corrected_surrogate(1.5, engine=1.0)[0] == pytest.approx(-0.5, rel=1e-7)


def test_a_correction_without_the_engines_probabilities_is_refused():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    bare = replace(batch, behaviour_logprobs=None)
    with pytest.raises(ValueError, match=r"batch\.behaviour_logprobs"):
        evaluate(build(importance_cap=2.0), policy, bare)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("term", "field"),
    [
        ("surrogate", "advantages"),
        ("kl_ref", "ref_logprobs"),
        ("perception_kl", "masked"),
    ],
)
def test_a_term_that_is_no_number_stops_the_run_by_name(term, field, bad):
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    broken = (masked_old(batch) if field == "masked" else getattr(batch, field)).clone()
    broken.view(-1)[0] = bad
    broken_batch = (
        with_masked_old(batch, broken) if field == "masked" else replace(batch, **{field: broken})
    )
    # paper mode reads its masked view from the scores; old keeps the broken one in the batch
    objective = build("paper", masked_policy="old")
    with pytest.raises(NonFiniteTermError, match=term) as caught:
        evaluate(objective, policy, broken_batch)
    assert caught.value.term == term
    assert isinstance(caught.value, FloatingPointError)


def test_gating_counts_only_correct_responses():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    gated = evaluate(build("paper", gate="correct"), policy, batch)["perception_kl"]
    scores = flat(policy.score(batch.response_ids, batch.response_mask))
    lengths = batch.response_mask.sum(1)
    # k3 per response by hand, wrong responses 0, still divided by all twelve
    r = (scores.masked_logprobs - scores.logprobs).exp()
    k3 = torch.where(batch.response_mask, r - 1 - r.log(), 0.0).sum(1) / lengths
    torch.testing.assert_close(gated, (k3 * batch.correct).sum() / len(lengths))


def test_a_detached_current_view_keeps_the_value_and_drops_the_masked_gradient():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = policy.score(batch.response_ids, batch.response_mask)
    weights = {"eta_full": 0.05, "eta_masked": 0.04}
    live = build("paper", **weights)(batch, scores, minibatch=batch, progress=0.0)
    detached = build("paper", masked_policy="current_detached", **weights)(
        batch, scores, minibatch=batch, progress=0.0
    )
    torch.testing.assert_close(detached["total"], live["total"], rtol=0, atol=0)
    assert not detached["masked_entropy"].requires_grad
    grad = torch.autograd.grad(
        detached["total"], scores["masked"].logprobs, retain_graph=True, allow_unused=True
    )[0]
    assert grad is None or not grad.any()


def test_diagnostics_match_their_definitions():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = policy.score(batch.response_ids, batch.response_mask)
    got = build("paper", dual_clip=1.05).diagnostics(batch, scores, batch)
    scores = flat(scores)
    assert not any(value.requires_grad for value in got.values())
    counts = dict.fromkeys(("low", "high", "dual"), 0)
    ratios, kls, masked_preferred = [], [], 0
    for i, row in enumerate(batch.response_mask.tolist()):
        response_kls = []
        for t in range(sum(row)):
            p, q = scores.logprobs[i, t].item(), scores.masked_logprobs[i, t].item()
            ratio = torch.tensor(p - batch.old_logprobs[i, t].item()).exp().item()
            advantage = batch.advantages[i, t].item()
            counts["low"] += advantage < 0 and ratio < 0.8
            counts["high"] += advantage > 0 and ratio > 1.3
            counts["dual"] += advantage < 0 and ratio > 1.05
            masked_preferred += q > p
            ratios.append(ratio)
            r = torch.tensor(q - p, dtype=torch.float64).exp().item()
            response_kls.append(r - 1 - (q - p))
        mean = sum(response_kls) / len(response_kls)
        kls.append(sum((kl - mean) ** 2 for kl in response_kls) / len(response_kls))
    num_tokens = len(ratios)
    assert min(counts.values()) > 0, "the batch must exercise every clip"
    for name, count in counts.items():
        assert got[f"clip_fraction_{name}"].item() == pytest.approx(count / num_tokens)
    assert got["ratio_mean"].item() == pytest.approx(sum(ratios) / num_tokens, rel=1e-5)
    assert got["masked_preferred_fraction"].item() == pytest.approx(masked_preferred / num_tokens)
    assert got["perception_kl_variance"].item() == pytest.approx(sum(kls) / len(kls))


def test_diagnostics_of_grpo_need_no_masked_view():
    policy = ToyPolicy(1)
    batch = replace(with_masked_old(make_batch(policy), None), ref_logprobs=None)
    scores = by_view(logprobs=batch.old_logprobs)
    got = build(objective="dapo").diagnostics(batch, scores, batch)
    assert "perception_kl_variance" not in got
    assert got["ratio_mean"].item() == pytest.approx(1.0)


def test_every_limit_reaches_its_term():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = policy.score(batch.response_ids, batch.response_mask)
    scores = flat(scores)
    mask, lengths = batch.response_mask, batch.response_mask.sum(1)

    def k3(q_logprobs, log_ratio_max=torch.inf):
        log_r = (q_logprobs - scores.logprobs).clamp(-log_ratio_max, log_ratio_max)
        return log_r.exp() - 1 - log_r

    def average(values):
        return (torch.where(mask, values, 0.0).sum(1) / lengths).mean()

    def term(name, **settings):
        objective = build("paper", **settings)
        return objective(batch, by_view(**vars(scores)), minibatch=batch, progress=0.0)[name]

    masked, ref = scores.masked_logprobs, batch.ref_logprobs
    cut = term("perception_kl", perception_kl_max=0.1)
    torch.testing.assert_close(cut, average(k3(masked).clamp(max=0.1)))
    torch.testing.assert_close(term("kl_ref", ref_kl_max=0.01), average(k3(ref).clamp(max=0.01)))
    for name, q in (("perception_kl", masked), ("kl_ref", ref)):
        torch.testing.assert_close(term(name, kl_log_ratio_max=0.05), average(k3(q, 0.05)))
    log_rho = (scores.logprobs - batch.old_logprobs).clamp(-0.05, 0.05)  # inside every clip
    torch.testing.assert_close(
        term("surrogate", kl_log_ratio_max=0.05),
        average(-log_rho.exp() * batch.advantages),
    )
    # top_p 0.2 of at most five tokens: above the 0.8 quantile, the largest alone
    largest = torch.where(mask, k3(masked), -torch.inf).max(1, keepdim=True).values
    restricted = torch.where(k3(masked) >= largest, k3(masked), 0.0)
    torch.testing.assert_close(term("perception_kl", perception_top_p=0.2), average(restricted))
