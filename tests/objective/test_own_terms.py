"""A term of one's own is a class; the objective asks for what it needs and adds it up like the others."""

from dataclasses import dataclass

import pytest
import torch
from objective_checks import ToyPolicy, make_batch, make_objective, parameter_gradients

from papo.objective import Objective, SettingError, Term, ViewKL
from papo.types import IMAGE, Needs


@dataclass(kw_only=True, eq=False)
class StaysNear(Term):
    """(log pi - log pi_old)^2: what a user might add."""

    tolerance: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.tolerance < 0:
            raise SettingError(f"{{tolerance}} is 0 or positive; got {self.tolerance}")

    @property
    def needs(self):
        return Needs(now=frozenset({("masked", "logprobs")}))

    def __call__(self, batch, scores):
        moved = (scores[IMAGE].logprobs - batch.old_logprobs).abs() - self.tolerance
        return moved.clamp(min=0).square() + 0 * scores["masked"].logprobs


def with_own(weight, **settings):
    terms = make_objective("official", "grpo").terms
    own = StaysNear(weight=weight, **{"average": "sequence", **settings})
    return Objective(terms={**terms, "near": own}, count_epsilon=0.0)


def test_its_value_gradient_and_needs_join_the_others():
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = policy.score(batch.response_ids, batch.response_mask)
    plain, objective = with_own(0.0), with_own(0.5)
    assert plain.needs.live_views == ()
    assert objective.needs.live_views == ("masked",)
    assert objective.needs.reference
    without, terms = (
        each(batch, scores, minibatch=batch, progress=0.0) for each in (plain, objective)
    )
    lengths = batch.response_mask.sum(1)
    moved = (scores[IMAGE].logprobs - batch.old_logprobs).square() * batch.response_mask
    torch.testing.assert_close(terms["near"], (moved.sum(1) / lengths).mean())
    torch.testing.assert_close(terms["total"], without["total"] + 0.5 * terms["near"])
    near = parameter_gradients(terms["near"], policy)
    assert near.norm() > 1e-3
    torch.testing.assert_close(
        parameter_gradients(terms["total"], policy),
        parameter_gradients(without["total"], policy) + 0.5 * near,
    )


def test_raised_it_pulls_the_other_way_and_annealed_it_ends():
    objective = with_own(0.5, direction="raise", anneal_until=0.5)
    assert [objective.weights(progress)["near"] for progress in (0.0, 0.25, 0.5, 1.0)] == [
        -0.5,
        -0.25,
        0.0,
        0.0,
    ]
    assert objective.depends_on_progress


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"direction": "up"}, "direction must be one of lower, raise; got 'up'"),
        ({"average": "mean"}, "average must be one of token, sequence; got 'mean'"),
        ({"anneal_until": 2.0}, "anneal_until is the share of the run.*got 2.0"),
        ({"tolerance": -1.0}, "tolerance is 0 or positive; got -1.0"),
    ],
)
def test_what_it_refuses_names_the_setting(settings, said):
    with pytest.raises(SettingError, match=said):
        with_own(0.5, **settings)


def test_two_views_are_two_terms_of_one_kind():
    """As DVRP has them: one divergence raised, another lowered, each with a view of its own."""
    kl = {"estimator": "k3", "policy": "old"}
    objective = Objective(
        terms={
            "perception": ViewKL(weight=0.01, direction="raise", view="masked", **kl),
            "robustness": ViewKL(weight=0.01, view="noised", **kl),
        },
        count_epsilon=0.0,
    )
    assert objective.needs.old_views == ("masked", "noised")
    assert objective.weights(0.0) == {"perception": -0.01, "robustness": 0.01}
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = policy.score(batch.response_ids, batch.response_mask)
    with pytest.raises(ValueError, match=r"'robustness'.*logprobs given the view 'noised'"):
        objective(batch, scores, minibatch=batch, progress=0.0)
