"""NoisyRollout: noise, its schedule, and the loss of a group whose halves saw different pictures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from papo.commands.method_cases.second_views import picture, pixels_of
from papo.commands.method_cases.steps import group_advantages, rows_of, token_mean
from papo.functional import clipped_surrogate, estimate_divergence
from papo.masking import (
    AnnealedDiffusionNoise,
    CropFillMask,
    DiffusionNoiseMask,
    diffusion_coefficients,
)


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schedule": schedule,
        "coefficients": coefficients,
        "noisy_image": noisy_image,
        "crop_fill": crop_fill,
        "loss": loss,
    }[case["kind"]](case["config"], case["inputs"])


def annealed(config: Mapping[str, Any]) -> AnnealedDiffusionNoise:
    """Their schedule in steps, as ours in shares of the run."""
    total, coefficient = config["total_steps"], float(config["decay_coef"])
    forms = {
        "sigmoid": ("sigmoid", coefficient),
        "pow": ("power", coefficient),
        "linear": ("power", 1.0),
        "exp": ("exponential", coefficient**total),
        "none": ("none", 1.0),
    }
    decay, steepness = forms[config["decay_mode"]]
    return AnnealedDiffusionNoise(
        initial_step=config["alpha0"],
        decay=decay,
        steepness=steepness,
        middle=config["mid_step"] / total,
        seed=0,
    )


def schedule(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    noise: Any = annealed(config)
    progress = [step / config["total_steps"] for step in inputs["steps"]]
    return {
        "decay": [noise.left(share) for share in progress],
        "noise_step": [noise.at(share).noise_step for share in progress],
    }


def coefficients(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    signal, noise = zip(*map(diffusion_coefficients, inputs["noise_step"]), strict=True)
    return {"signal": signal, "noise": noise}


def noisy_image(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    mask = DiffusionNoiseMask(noise_step=config["noise_step"], seed=0)
    noisy = mask.with_noise(picture(inputs["pixels"]), torch.tensor(inputs["noise"]))
    return {"pixels": pixels_of(noisy)}


def crop_fill(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    white = picture(np.full((config["height"], config["width"], 3), 255))
    filled = CropFillMask(size=config["size"], seed=0).filled(white, inputs["x"], inputs["y"])
    return {"black": (np.asarray(filled) == 0).all(axis=2).astype(int).tolist()}


def loss(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    rows = rows_of({name: value for name, value in inputs.items() if name != "view"})
    mask, leaves = rows["response_mask"], ("log_probs", "entropies")
    logprobs, entropies = (rows[name].requires_grad_() for name in leaves)
    advantages = group_advantages(rows["rewards"], rows["group_ids"])[:, None] * mask
    values = clipped_surrogate(
        logprobs,
        rows["old_log_probs"],
        advantages,
        clip_low=config["clip_ratio"],
        clip_high=config["clip_ratio"],
        dual_clip=None,
        log_ratio_max=None,
    )
    values = values - config["entropy_coef"] * entropies
    if config["kl_loss_coef"]:
        kl = estimate_divergence(
            "k3",
            logprobs,
            rows["ref_log_probs"],
            old_logprobs=logprobs.detach(),
            log_ratio_max=20.0,
        )
        values = values + config["kl_loss_coef"] * kl.clamp(-10.0, 10.0)
    size = config["micro_batch"]
    micros = [slice(start, start + size) for start in range(0, len(mask), size)]
    losses = [token_mean(values[micro], mask[micro]) / len(micros) for micro in micros]
    total = torch.stack(losses).sum()
    total.backward()
    return {
        "advantages": advantages,
        "micro_losses": [one.detach() for one in losses],
        "loss": total.detach(),
        "grad_log_probs": logprobs.grad,
        "grad_entropies": entropies.grad,
    }
