"""DVRP: its terms as conf/objective/dvrp.yaml names them, of views without gradient, and its noise."""

from collections.abc import Mapping
from typing import Any

from papo.commands.method_cases.steps import batch_of, rows_of
from papo.masking import AnnealedDiffusionNoise
from papo.objective import ClippedSurrogate, Objective, ViewEntropy, ViewKL
from papo.types import IMAGE, ViewScores


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    return {"loss": loss, "schedule": schedule}[case["kind"]](case["config"], case["inputs"])


def schedule(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    noise = AnnealedDiffusionNoise(
        initial_step=int(config["t_init"]),
        decay="sigmoid",
        steepness=config["sharpness"],
        middle=0.5,
        seed=0,
    )
    shares = [step / config["total_steps"] for step in inputs["steps"]]
    return {"noise_step": [noise.initial_step * noise.left(share) for share in shares]}


def loss(config: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    rows = rows_of(inputs)
    views = {name: ViewScores(logprobs=rows[f"{name}_log_probs"]) for name in ("masked", "noised")}
    batch = batch_of(rows, views)
    logprobs = rows["log_probs"].requires_grad_()
    kl: dict[str, Any] = {
        "policy": "old",
        "estimator": "k3",
        "log_ratio_max": 20.0,
        "maximum": 10.0,
    }
    entropy: dict[str, Any] = {
        "weight": config["entropy_coef"],
        "estimator": "sampled",
        "policy": "old",
    }
    necessity, robustness = config["necessity_coef"], config["robustness_coef"]
    objective = Objective(
        terms={
            "surrogate": ClippedSurrogate(
                weight=1.0,
                clip_low=config["clip_low"],
                clip_high=config["clip_high"],
                dual_clip=3.0,
                log_ratio_max=20.0,
            ),
            "necessity_kl": ViewKL(weight=necessity, direction="raise", view="masked", **kl),
            "robustness_kl": ViewKL(weight=robustness, view="noised", **kl),
            "masked_entropy_term": ViewEntropy(view="masked", **entropy),
            "noised_entropy_term": ViewEntropy(view="noised", **entropy),
        },
        count_epsilon=0.0,
    )
    scores = {IMAGE: ViewScores(logprobs=logprobs)}
    terms = objective(batch, scores, minibatch=batch, progress=0.0)
    terms["total"].backward()
    return {
        **{name: value.detach() for name, value in terms.items()},
        "advantages": batch.advantages,
        "loss": terms["total"].detach(),
        "grad_log_probs": logprobs.grad,
    }
