"""What must hold of an objective, as functions: the tests call them, and so do the mutants.

The policy is a toy whose every part is real: a context embedding plus, in the full view, an image
feature, an output embedding, and log-probs by `token_statistics`. Everything is float64.
"""

import functools
import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from hydra import compose, initialize_config_dir

from papo.commands import building
from papo.functional import group_advantages, token_statistics, zero_padding
from papo.types import IMAGE, RolloutBatch, ViewScores

CONF = Path(__file__).resolve().parents[2] / "conf"
TERMS = ("surrogate", "kl_ref", "perception_kl", "entropy", "masked_entropy")
FIDELITIES = ("official", "paper", "exact")
ALL_ON = ("objective.eta_full=0.05", "objective.eta_masked=0.04", "objective.gamma=0.03")
NUM_RESPONSES, NUM_GROUPS, NUM_TOKENS, NUM_HIDDEN, NUM_IDS = 3, 4, 5, 4, 7
LENGTHS = [5, 3, 1, 4, 5, 2, 2, 2, 2, 1, 3, 5]


OFF = {
    "importance_cap": None,
    "gamma": 0.0,
    "eta_full": 0.0,
    "eta_masked": 0.0,
    "entropy_average": "token",
}
"""What an objective without perception terms says of them."""


@functools.cache
def composed(fidelity, objective="papo_g", overrides=()):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(overrides=[f"+fidelity={fidelity}", f"+objective={objective}", *overrides])


def objective_settings(fidelity, objective="papo_g", overrides=()):
    """Every setting of the composed configuration by its name."""
    config = composed(fidelity, objective, tuple(overrides))
    return SimpleNamespace(**{**OFF, **config.fidelity, **config.objective})


def make_objective(fidelity, objective="papo_g", overrides=()):
    return building.make_objective(composed(fidelity, objective, tuple(overrides)))


def flat(scores):
    """The five quantities of both views by the names that the naive definitions use."""
    return SimpleNamespace(
        logprobs=scores[IMAGE].logprobs,
        masked_logprobs=scores["masked"].logprobs,
        entropy=scores[IMAGE].entropy,
        masked_entropy=scores["masked"].entropy,
        perception_kl=scores["masked"].kl_from_image,
    )


def by_view(logprobs, masked_logprobs=None, entropy=None, masked_entropy=None, perception_kl=None):
    """The scores whose five quantities these are."""
    scores = {IMAGE: ViewScores(logprobs=logprobs, entropy=entropy)}
    if masked_logprobs is not None:
        scores["masked"] = ViewScores(
            logprobs=masked_logprobs, entropy=masked_entropy, kl_from_image=perception_kl
        )
    return scores


FIELDS = ("logprobs", "masked_logprobs", "entropy", "masked_entropy", "perception_kl")


def masked_old(batch):
    """log q of the rollout policy's masked view."""
    return batch.old_views["masked"].logprobs


def with_masked_old(batch, logprobs):
    views = {} if logprobs is None else {"masked": ViewScores(logprobs=logprobs)}
    return replace(batch, old_views=views)


class ToyPolicy(torch.nn.Module):
    """p(. | image) = softmax(E (context + image_gain * image)); the masked view drops the image."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape, scale=1.0):
            return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

        num_rollouts = NUM_RESPONSES * NUM_GROUPS
        self.register_buffer("context", draw(num_rollouts, NUM_TOKENS, NUM_HIDDEN))
        self.register_buffer("image", draw(num_rollouts, NUM_TOKENS, NUM_HIDDEN))
        self.head = torch.nn.Parameter(draw(NUM_IDS, NUM_HIDDEN, scale=0.6))
        self.image_gain = torch.nn.Parameter(1.0 + draw(NUM_HIDDEN, scale=0.1))
        self.context_gain = torch.nn.Parameter(1.0 + draw(NUM_HIDDEN, scale=0.1))

    def moved(self, step, seed):
        """The same policy some random steps away: an older one, or a reference."""
        other = ToyPolicy(0)
        other.load_state_dict(self.state_dict())
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in other.parameters():
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter += step * noise
        return other

    def score(self, response_ids, mask, rows=slice(None)):
        """Both views, exact statistics included, the gradient reaching every parameter."""
        masked = self.context[rows] * self.context_gain
        full = masked + self.image[rows] * self.image_gain
        got = token_statistics(
            full.reshape(-1, NUM_HIDDEN),
            self.head,
            response_ids.reshape(-1),
            temperature=1.0,
            banned_ids=torch.tensor([NUM_IDS - 1]),
            full_vocabulary=True,
            chunk_size=7,
            masked_hidden=masked.reshape(-1, NUM_HIDDEN),
        )
        return by_view(
            **{f: zero_padding(getattr(got, f).reshape(response_ids.shape), mask) for f in FIELDS}
        )


def make_batch(policy, seed=3):
    """A minibatch written by an older policy, with lengths from 1 to 5, two groups cut by clips."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(NUM_TOKENS)[None] < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(0, NUM_IDS - 1, mask.shape, generator=generator)
    rewards = torch.rand(len(LENGTHS), generator=generator, dtype=torch.float64)
    noise = 0.5 * torch.randn(mask.shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        old = flat(policy.moved(0.15, seed=11).score(ids, mask))
        reference = flat(policy.moved(0.3, seed=12).score(ids, mask))
    advantages = group_advantages(rewards, num_responses=NUM_RESPONSES, epsilon=1e-6)
    return RolloutBatch(
        num_responses=NUM_RESPONSES,
        response_mask=mask,
        old_logprobs=old.logprobs,
        advantages=advantages[:, None].expand(mask.shape),
        correct=rewards > 0.5,
        ref_logprobs=reference.logprobs,
        # The engine is the older policy as another program computes it: here far off, to be seen.
        behaviour_logprobs=old.logprobs + noise * mask,
        old_views={"masked": ViewScores(logprobs=old.masked_logprobs)},
        response_ids=ids,
    )


def parameter_gradients(loss, policy):
    """One flat vector; parameters out of reach count as 0."""
    parameters = list(policy.parameters())
    if not loss.requires_grad:
        return torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    filled = [
        torch.zeros_like(p) if g is None else g for g, p in zip(grads, parameters, strict=True)
    ]
    return torch.cat([g.reshape(-1) for g in filled])


def evaluate(objective, policy, batch, progress=0.0):
    scores = policy.score(batch.response_ids, batch.response_mask)
    return objective(batch, scores, minibatch=batch, progress=progress)


# --- the definitions, one token at a time, in Python floats --------------------------------------


def naive_average(rows, lengths, average):
    if average == "token":
        return sum(map(sum, rows)) / sum(lengths)
    return sum(sum(row) / length for row, length in zip(rows, lengths, strict=True)) / len(rows)


def naive_k3(log_p, log_q):
    ratio = math.exp(log_q) / math.exp(log_p)
    return ratio - 1 - math.log(ratio)


def naive_surrogate(log_p, log_old, log_engine, advantage, settings):
    ratio = math.exp(log_p - log_old)
    clipped = min(max(ratio, 1 - settings.clip_low), 1 + settings.clip_high)
    gain = min(ratio * advantage, clipped * advantage)
    if settings.dual_clip is not None and advantage < 0:
        gain = max(gain, settings.dual_clip * advantage)
    if settings.importance_cap is not None:
        gain *= min(math.exp(log_old) / math.exp(log_engine), settings.importance_cap)
    return -gain


def naive_terms(settings, batch, scores):
    """Every term from its definition; `settings` is the composed configuration, not the object."""
    lengths, scores = batch.response_mask.sum(1).tolist(), flat(scores)
    masked = masked_old(batch) if settings.masked_policy == "old" else scores.masked_logprobs

    def rows(tensor):
        return [row[:n] for row, n in zip(tensor.tolist(), lengths, strict=True)]

    def tokenwise(function, *tensors):
        return [
            [function(*values) for values in zip(*group, strict=True)]
            for group in zip(*map(rows, tensors), strict=True)
        ]

    surrogate = tokenwise(
        lambda p, old, engine, a: naive_surrogate(p, old, engine, a, settings),
        scores.logprobs,
        batch.old_logprobs,
        batch.behaviour_logprobs,
        batch.advantages,
    )
    if settings.ref_estimator == "k3_weighted":
        kl_ref = tokenwise(
            lambda p, q, old: math.exp(p - old) * naive_k3(p, q),
            scores.logprobs,
            batch.ref_logprobs,
            batch.old_logprobs,
        )
    else:
        kl_ref = tokenwise(naive_k3, scores.logprobs, batch.ref_logprobs)
    if settings.perception_estimator == "exact":
        token_kl = rows(scores.perception_kl)
    else:
        token_kl = tokenwise(naive_k3, scores.logprobs, masked)
    if settings.entropy == "exact":
        entropy, masked_entropy = rows(scores.entropy), rows(scores.masked_entropy)
    else:
        entropy = tokenwise(lambda p: -p, scores.logprobs)
        masked_entropy = tokenwise(lambda q: -q, masked)
    terms = {
        "surrogate": naive_average(surrogate, lengths, settings.average),
        "kl_ref": naive_average(kl_ref, lengths, settings.average),
        "perception_kl": naive_average(token_kl, lengths, settings.average),
        "entropy": naive_average(entropy, lengths, settings.entropy_average),
        "masked_entropy": naive_average(masked_entropy, lengths, settings.entropy_average),
    }
    terms["total"] = (
        terms["surrogate"]
        + settings.beta * terms["kl_ref"]
        - settings.gamma * terms["perception_kl"]
        + settings.eta_full * terms["entropy"]
        + settings.eta_masked * terms["masked_entropy"]
    )
    return terms


# --- the checks ----------------------------------------------------------------------------------


def check_matches_the_definition(fidelity, objective="papo_g", overrides=ALL_ON):
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    settings = objective_settings(fidelity, objective, tuple(overrides))
    scores = policy.score(batch.response_ids, batch.response_mask)
    got = make_objective(fidelity, objective, overrides)(
        batch, scores, minibatch=batch, progress=0.0
    )
    # official computes its KLs in float32 and adds 1e-8 to counts
    tolerance = 1e-6 if fidelity == "official" else 1e-11
    expected_terms = naive_terms(settings, batch, scores)
    perceptive = ("perception_kl", "entropy", "masked_entropy")
    assert {*expected_terms} - {*got} <= {*perceptive}, "a term is missing"
    assert {*got} - {*expected_terms} == set()
    for name in got:
        expected = expected_terms[name]
        error = abs(got[name].item() - expected)
        assert error <= tolerance * max(1.0, abs(expected)), f"{name} is off by {error:.1e}"


def constant_terms(fidelity):
    """Terms documented to have no gradient: the masked entropy of the rollout policy."""
    return {"masked_entropy"} if fidelity == "official" else set()


def check_every_term_is_alive(fidelity):
    """Each term's own gradient reaches the policy, unless the mode documents a constant."""
    policy = ToyPolicy(1)
    terms = evaluate(make_objective(fidelity, "papo_g", ALL_ON), policy, make_batch(policy))
    for name in TERMS:
        size = parameter_gradients(terms[name], policy).norm().item()
        if name in constant_terms(fidelity):
            assert size == 0.0, f"{name} was documented as a constant but has gradient {size:.1e}"
        else:
            assert size > 1e-3, f"{name} has no gradient"


def check_no_term_is_orphaned(fidelity):
    """total's value and gradient are the weighted sums of the terms' values and gradients."""
    policy = ToyPolicy(1)
    objective = make_objective(fidelity, "papo_g", ALL_ON)
    terms = evaluate(objective, policy, make_batch(policy))
    settings = objective_settings(fidelity, "papo_g", ALL_ON)
    weights = {
        "surrogate": 1.0,
        "kl_ref": settings.beta,
        "perception_kl": -settings.gamma,
        "entropy": settings.eta_full,
        "masked_entropy": settings.eta_masked,
    }
    value = sum(weights[name] * terms[name] for name in TERMS)
    gradient = sum(weights[name] * parameter_gradients(terms[name], policy) for name in TERMS)
    torch.testing.assert_close(terms["total"], value, rtol=1e-12, atol=1e-14)
    rtol = 1e-6 if fidelity == "official" else 1e-10  # official KLs pass through float32
    torch.testing.assert_close(
        parameter_gradients(terms["total"], policy), gradient, rtol=rtol, atol=1e-2 * rtol
    )


WEIGHT_OF = {
    "kl_ref": "objective.beta",
    "perception_kl": "objective.gamma",
    "entropy": "objective.eta_full",
    "masked_entropy": "objective.eta_masked",
}


def check_descent_moves_the_term(fidelity, term):
    """A small step down the total, the other terms' pull removed, moves the *naive* term rightly.

    kl_ref and the entropies fall, the perception KL rises, good tokens gain on bad ones.
    """
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    off = (*(f"{key}=0.0" for key in WEIGHT_OF.values()), "objective.dual_clip=null")

    def total_gradient(overrides):
        objective = make_objective(fidelity, "papo_g", overrides)
        return parameter_gradients(evaluate(objective, policy, batch)["total"], policy)

    step = -total_gradient(off)
    settings = objective_settings(fidelity, "papo_g", off)
    if term != "surrogate":
        step = step - 2 * step  # minus the surrogate's pull
        step = step - total_gradient((*off, f"{WEIGHT_OF[term]}=1.0"))
        settings = objective_settings(fidelity, "papo_g", (*off, f"{WEIGHT_OF[term]}=1.0"))

    def measure():
        with torch.no_grad():
            scores = policy.score(batch.response_ids, batch.response_mask)
        return naive_terms(settings, batch, scores)[term]

    before = measure()
    with torch.no_grad():
        torch.nn.utils.vector_to_parameters(
            torch.nn.utils.parameters_to_vector(policy.parameters()) + 1e-4 * step / step.norm(),
            policy.parameters(),
        )
    change = measure() - before
    wanted = 1 if term == "perception_kl" else -1
    assert change * wanted > 1e-7, f"{term} moved by {change:.1e}, wanted the other way"


def check_padding_never_matters(fidelity):
    """NaN at padding changes no term, and no gradient flows back to it."""
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    objective = make_objective(fidelity, "papo_g", ALL_ON)

    def run(garbage):
        with torch.no_grad():
            scores = flat(policy.score(batch.response_ids, batch.response_mask))
        leaves = {
            f: getattr(scores, f).masked_fill(~batch.response_mask, garbage).requires_grad_()
            for f in FIELDS
        }
        terms = objective(batch, by_view(**leaves), minibatch=batch, progress=0.0)
        grads = torch.autograd.grad(terms["total"], leaves.values(), allow_unused=True)
        return terms, [g for g in grads if g is not None]

    terms, grads = run(float("nan"))
    clean_terms, clean_grads = run(0.0)
    for name in clean_terms:
        torch.testing.assert_close(terms[name], clean_terms[name], rtol=0, atol=0)
    for dirty, clean in zip(grads, clean_grads, strict=True):
        torch.testing.assert_close(dirty, clean, rtol=0, atol=0)
        assert (dirty[~batch.response_mask] == 0.0).all()


def check_extra_padding_never_matters(fidelity):
    """The same responses in a wider tensor give the same terms."""
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    objective = make_objective(fidelity, "papo_g", ALL_ON)
    scores = policy.score(batch.response_ids, batch.response_mask)

    def widen(tensor):
        return torch.nn.functional.pad(tensor, (0, 6))

    wide_batch = RolloutBatch(
        num_responses=NUM_RESPONSES,
        response_mask=widen(batch.response_mask),
        old_logprobs=widen(batch.old_logprobs),
        ref_logprobs=widen(batch.ref_logprobs),
        behaviour_logprobs=widen(batch.behaviour_logprobs),
        old_views={"masked": batch.old_views["masked"].map(widen)},
        advantages=widen(batch.advantages),
        correct=batch.correct,
    )
    wide_scores = {view: seen.map(widen) for view, seen in scores.items()}
    wide = objective(wide_batch, wide_scores, minibatch=wide_batch, progress=0.0)
    for name, term in objective(batch, scores, minibatch=batch, progress=0.0).items():
        torch.testing.assert_close(wide[name], term, rtol=1e-12, atol=1e-14)


def check_cutting_never_matters(fidelity, overrides=ALL_ON):
    """Terms, gradients and diagnostics of the micro-batches add up to the minibatch's."""
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    objective = make_objective(fidelity, "papo_g", overrides)
    whole = evaluate(objective, policy, batch)
    whole_scores = policy.score(batch.response_ids, batch.response_mask)
    watched = objective.diagnostics(batch, whole_scores, batch)
    for cuts in ([0, 1, 2, 3, 4], [0, 1, 4], [0, 3, 4]):
        summed = {name: torch.zeros((), dtype=torch.float64) for name in whole}
        summed_watched = {name: torch.zeros((), dtype=torch.float64) for name in watched}
        for start, stop in itertools.pairwise(cuts):
            part = batch.select_groups(start, stop)
            rows = slice(start * NUM_RESPONSES, stop * NUM_RESPONSES)
            scores = policy.score(part.response_ids, part.response_mask, rows)
            terms = objective(part, scores, minibatch=batch, progress=0.0)
            summed = {name: summed[name] + terms[name] for name in summed}
            for name, value in objective.diagnostics(part, scores, batch).items():
                summed_watched[name] = summed_watched[name] + value
        for name in whole:
            torch.testing.assert_close(summed[name], whole[name], rtol=1e-11, atol=1e-13)
            torch.testing.assert_close(
                parameter_gradients(summed[name], policy),
                parameter_gradients(whole[name], policy),
                rtol=1e-9,
                atol=1e-12,
            )
        for name in watched:
            torch.testing.assert_close(summed_watched[name], watched[name], rtol=1e-11, atol=1e-13)


def check_masked_branch_gradient(fidelity):
    """The masked view's log-probs carry gradient exactly where the mode claims it."""
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = policy.score(batch.response_ids, batch.response_mask)
    terms = make_objective(fidelity, "papo_g", ALL_ON)(batch, scores, minibatch=batch, progress=0.0)
    exact, scores = fidelity == "exact", flat(scores)
    reads = {
        "perception_kl": scores.perception_kl if exact else scores.masked_logprobs,
        "masked_entropy": scores.masked_entropy if exact else scores.masked_logprobs,
    }
    for name, masked_input in reads.items():
        gradient = None
        if terms[name].requires_grad:
            (gradient,) = torch.autograd.grad(
                terms[name], masked_input, retain_graph=True, allow_unused=True
            )
        live = gradient is not None and bool((gradient[batch.response_mask] != 0).all())
        assert live == (fidelity != "official"), f"{name}: masked branch live is {live}"
