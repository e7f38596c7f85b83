"""What the official objective is for one golden case, and how far that is from what the case says."""

import functools
from typing import Any

import torch
from hydra import compose

from papo.commands.building import make_objective
from papo.functional import group_advantages, zero_padding
from papo.objective import Objective
from papo.types import IMAGE, RolloutBatch, ViewScores

OFFICIAL_EPSILON = 1e-6  # added to the standard deviation of a group's rewards

CASE_KEYS = {"name", "seed", "config", "group_size", "inputs", "expected"}
INPUT_KEYS = {
    "log_probs", "old_log_probs", "ref_log_probs", "masked_log_probs", "response_mask", "rewards",
    "group_ids",
}  # fmt: skip
REQUIRED_CONFIG = {
    "clip_low", "clip_high", "clip_dual", "avg", "beta", "gamma", "eta_ori", "eta_mask", "recompute",
}  # fmt: skip
OPTIONAL_CONFIG = {"top_p", "kl_clip", "uniform_group"}
TERM_OF = {
    "policy_loss": "surrogate",
    "kl_ref": "kl_ref",
    "kl_prcp": "perception_kl",
    "entropy_original": "entropy",
    "entropy_masked": "masked_entropy",
    "loss": "total",
}
OTHER_EXPECTED = {
    "clipfrac_high", "clipfrac_low", "ppo_kl", "advantages", "grad_log_probs",
    "grad_masked_log_probs",
}  # fmt: skip


class GoldenFileError(Exception):
    """The file does not have the form this check understands."""


def require_keys(what: str, got: set[str], required: set[str], optional: set[str]) -> None:
    missing, unknown = required - got, got - required - optional
    if missing or unknown:
        raise GoldenFileError(
            f"{what}: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}"
        )


def objective_overrides(config: dict[str, Any]) -> tuple[str, ...]:
    """Returns the Hydra overrides that say what a case's official configuration says."""
    require_keys("config", set(config), REQUIRED_CONFIG, OPTIONAL_CONFIG)
    averages = {"token": "token", "seq": "sequence"}
    if config["avg"] not in averages or not isinstance(config["recompute"], bool):
        raise GoldenFileError(f"config: avg={config['avg']!r}, recompute={config['recompute']!r}")
    settings = {
        "clip_low": config["clip_low"],
        "clip_high": config["clip_high"],
        "dual_clip": config["clip_dual"],
        "average": averages[config["avg"]],
        "beta": config["beta"],
        "gamma": config["gamma"],
        "eta_full": config["eta_ori"],
        "eta_masked": config["eta_mask"],
    }
    if config.get("top_p") is not None:
        settings["perception_top_p"] = config["top_p"]
    overrides = {f"objective.{key}": value for key, value in settings.items()}
    overrides["fidelity.masked_policy"] = "current" if config["recompute"] else "old"
    if config.get("kl_clip") is not None:
        overrides["fidelity.perception_kl_max"] = config["kl_clip"]
    return tuple(f"{key}={'null' if v is None else v}" for key, v in overrides.items())


@functools.cache
def official_objective(overrides: tuple[str, ...]) -> Objective:
    """Composes fidelity=official, objective=papo_g and the overrides, and builds it."""
    composed = compose(overrides=["+fidelity=official", "+objective=papo_g", *overrides])
    return make_objective(composed)


def read_inputs(case: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Returns the case's inputs as float64 tensors, the mask as booleans, padding zeroed."""
    inputs = case["inputs"]
    require_keys("inputs", set(inputs), INPUT_KEYS, set())
    tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in inputs.items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise GoldenFileError(f"inputs.{name} holds NaN or infinity")
    if not ((tensors["response_mask"] == 0) | (tensors["response_mask"] == 1)).all():
        raise GoldenFileError("inputs.response_mask holds something other than 0 and 1")
    mask = tensors["response_mask"].bool()
    for name in ("old_log_probs", "ref_log_probs", "masked_log_probs"):
        tensors[name] = zero_padding(tensors[name], mask)
    groups = tensors["group_ids"].reshape(-1, case["group_size"])
    if not (groups == groups[:, :1]).all() or len(groups[:, 0].unique()) != len(groups):
        raise GoldenFileError("inputs.group_ids must number contiguous groups of group_size")
    return {**tensors, "response_mask": mask}


def evaluate(case: dict[str, Any]) -> dict[str, torch.Tensor | None]:
    """Returns what this project computes for each key of the case's `expected`."""
    objective = official_objective(objective_overrides(case["config"]))
    inputs = read_inputs(case)
    advantages = group_advantages(
        inputs["rewards"], num_responses=case["group_size"], epsilon=OFFICIAL_EPSILON
    )
    logprobs = inputs["log_probs"].clone().requires_grad_()
    masked_logprobs = inputs["masked_log_probs"].clone().requires_grad_()
    batch = RolloutBatch(
        num_responses=case["group_size"],
        response_mask=inputs["response_mask"],
        old_logprobs=inputs["old_log_probs"],
        advantages=advantages[:, None].expand_as(logprobs),
        correct=inputs["rewards"] > 0,
        ref_logprobs=inputs["ref_log_probs"],
        old_views={"masked": ViewScores(logprobs=inputs["masked_log_probs"])},
    )
    scores = {IMAGE: ViewScores(logprobs=logprobs), "masked": ViewScores(logprobs=masked_logprobs)}
    terms = objective(batch, scores, minibatch=batch, progress=0.0)
    gradients = torch.autograd.grad(terms["total"], (logprobs, masked_logprobs), allow_unused=True)
    watched = objective.diagnostics(batch, scores, batch)
    return {
        **{golden: terms[ours] for golden, ours in TERM_OF.items() if ours in terms},
        "clipfrac_high": watched["clip_fraction_low"] + watched["clip_fraction_high"],
        "clipfrac_low": watched["clip_fraction_dual"],
        "ppo_kl": watched["old_kl"],
        "advantages": advantages,
        "grad_log_probs": gradients[0],
        "grad_masked_log_probs": gradients[1],
    }


def absolute_error(name: str, expected: Any, got: torch.Tensor | None) -> float:
    """Returns the largest |expected - got|; infinite where one is there and the other is not."""
    if expected is None or got is None:
        present = got if expected is None else torch.tensor(expected)
        if present is None:
            return 0.0
        # No gradient and a gradient of zeros are the same update.
        return 0.0 if name.startswith("grad_") and not present.any() else float("inf")
    wanted = torch.tensor(expected, dtype=torch.float64)
    if wanted.shape != got.shape:
        return float("inf")
    error = (wanted - got.detach()).abs().max().item()
    return error if error == error else float("inf")


def check_case(case: dict[str, Any]) -> dict[str, float]:
    """Returns the absolute error of every expected quantity of one case."""
    require_keys("case", set(case), CASE_KEYS, set())
    expected = case["expected"]
    weighted = {"kl_ref": "beta", "kl_prcp": "gamma", "entropy_original": "eta_ori",
                "entropy_masked": "eta_mask"}  # fmt: skip
    required = OTHER_EXPECTED | {"policy_loss", "loss"}
    required |= {term for term, weight in weighted.items() if case["config"].get(weight)}
    require_keys("expected", set(expected), required, set(weighted))
    got = evaluate(case)
    return {name: absolute_error(name, value, got[name]) for name, value in expected.items()}
