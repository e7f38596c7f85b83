"""The sweeps whose arms are methods: every job makes a plan, and what was chosen was a candidate."""

import pytest
from conf.test_sweeps import CONF, hydra_config, jobs_of, lines_of
from omegaconf import OmegaConf

from papo.commands.training.plan import make_plan

__all__ = ["hydra_config"]

pytestmark = pytest.mark.slow

OTHERS = {"lab_papo_g", "papo_jsd", "papo_margin"}
"""Bounded perception terms stand beside the fixed settings of lab_safeguard."""
METHODS = {file.stem for file in (CONF / "objective").glob("*.yaml")} - OTHERS
TOLD = {"perceval", "evidence_rl", "papo_g_control"}
"""They have to be told where the evidence is, or what was misread, as no published data set does."""


def arms_of(sweep):
    return OmegaConf.load(CONF / "sweep" / f"{sweep}.yaml").sweep.arms


@pytest.mark.parametrize(
    ("sweep", "overrides", "methods"),
    [
        ("successors", ("+experiment=grpo_3b",), METHODS - TOLD),
        ("lab_successors", ("reward=lab_partly_labelled",), METHODS),
    ],
)
def test_every_method_is_an_arm_with_a_live_entropy_and_no_further_samples(
    sweep, overrides, methods, hydra_config
):
    jobs = jobs_of(f"+sweep={sweep}", *overrides, "seed=7")
    found = {}
    for job in jobs:
        config = hydra_config(job)
        plan = make_plan(config)
        found[config.sweep.arm] = plan
        assert config.fidelity.entropy == "exact"
        assert plan.settings.max_resample == 0
        if hasattr(plan.reward, "close"):
            plan.reward.close()
    assert found.keys() == methods
    plain = found["grpo"].objective
    for arm in methods - {"grpo", "dapo"}:
        objective = found[arm].objective
        differs = objective.weights(progress=0.0) != plain.weights(progress=0.0)
        assert differs or objective.credits or found[arm].sampled_from, arm


def test_settings_of_the_lab_are_candidates_and_reach_the_run(hydra_config):
    chosen, candidates = arms_of("lab_successors"), arms_of("lab_successors_tuning")
    for job in jobs_of("+sweep=lab_successors", "seed=7"):
        config = hydra_config(job)
        arm = config.sweep.arm
        wanted = chosen.get(arm) or {}
        for key, value in wanted.items():
            assert OmegaConf.select(config, key) == value, arm
        tried = [
            candidates[name]
            for strength in ("weak", "middle", "strong")
            if (name := f"{'papo_g_entropy' if arm == 'papo_g_control' else arm}_{strength}")
            in candidates
        ]
        assert len(tried) == 3 or arm in ("grpo", "dapo")
        assert not tried or any(
            all(OmegaConf.select(config, key) == value for key, value in one.items())
            for one in tried
        ), arm


def test_every_method_has_three_candidates_that_differ(hydra_config):
    lines, composed = lines_of("+sweep=lab_successors_tuning", "reward=lab_partly_labelled")
    chosen = [dict(one.split("=") for one in line) for line in lines]
    arms = [f"{one['objective']}_{one['sweep.strength']}" for one in chosen]
    assert hydra_config(composed(lines[-1])).sweep.arm == arms[-1]
    methods = METHODS - {"grpo", "dapo", "papo_g_control"}
    assert sorted(arms) == sorted(
        f"{name}_{strength}" for name in methods for strength in ("weak", "middle", "strong")
    )
    candidates = arms_of("lab_successors_tuning")
    for name in methods:
        tried = [str(candidates[f"{name}_{one}"]) for one in ("weak", "middle", "strong")]
        assert len(set(tried)) == 3
