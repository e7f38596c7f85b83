"""objective=papo_jsd is the arm of lab_safeguard that was measured, whatever fidelity= says."""

import math

import pytest
import torch
from conf.test_sweeps import hydra_config, jobs_of
from methods.credit_cases import config_of
from objective.objective_checks import ToyPolicy, make_batch, parameter_gradients
from omegaconf import OmegaConf

from papo.commands.building import make_objective

__all__ = ["hydra_config"]

COMPUTED = ("objective", "fidelity", "masking")


@pytest.fixture
def arm(hydra_config):
    [job] = jobs_of("+sweep=lab_safeguard", "seed=7", "sweep.arm=papo_jsd")
    return hydra_config(job)


def parts(config):
    plain = OmegaConf.to_container(config, resolve=True)
    return {name: plain[name] for name in COMPUTED}


@pytest.mark.parametrize("fidelity", ["paper", "official", "exact"])
def test_it_composes_what_the_arm_composes(fidelity, arm):
    assert parts(config_of("papo_jsd", fidelity)) == parts(arm)
    assert parts(config_of("lab_papo_g", fidelity)) != parts(arm)


def loss_and_gradients(config):
    policy = ToyPolicy(1)
    batch = make_batch(policy)
    scores = policy.score(batch.response_ids, batch.response_mask)
    terms = make_objective(config)(batch, scores, minibatch=batch, progress=0.0)
    return terms, parameter_gradients(terms["total"], policy)


def test_its_loss_is_that_of_the_arm_to_the_bit(arm):
    expected, expected_gradients = loss_and_gradients(arm)
    got, gradients = loss_and_gradients(config_of("papo_jsd", "paper"))
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)
    torch.testing.assert_close(gradients, expected_gradients, rtol=0, atol=0)
    assert 0 < got["perception_kl"] < math.log(2)
    other, _ = loss_and_gradients(config_of("lab_papo_g", "paper"))
    assert other["total"] != got["total"]


def test_a_single_key_of_fidelity_still_changes_it():
    config = config_of("papo_jsd", "paper", "fidelity.perception_estimator=k3")
    assert make_objective(config).terms["perception_kl"].estimator == "k3"
