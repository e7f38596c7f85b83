"""CFPO's cases: the loss is configuration, the intervention that of papo.functional."""

from collections.abc import Mapping
from typing import Any

import torch

from papo.commands.method_cases import steps
from papo.functional import attention_change, salient_attention, values_without_picture
from papo.objective import ClippedSurrogate, Objective, ReferenceKL, Term, ViewEntropy, ViewKL
from papo.types import IMAGE, MinibatchCounts, ViewScores

_DEVIATIONS = {"high": 2.0, "medium": 1.0, "low": 0.0}
_AVERAGES = {"token": "token", "seq": "sequence"}


def outputs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Computes what a case holds."""
    return (intervention if case["kind"] == "intervention" else loss)(case)


def intervention(case: Mapping[str, Any]) -> dict[str, Any]:
    """What is added to the output of attention; one sequence."""
    config = case["config"]
    spans = [(start, end) for start, end in case["inputs"]["image_spans"]]
    weights, values = (
        torch.tensor(case["inputs"][name], dtype=torch.float64)[0]
        for name in ("attention_weights", "values")
    )
    salient = salient_attention(weights, spans, deviations=_DEVIATIONS[config["threshold"]])
    place = torch.arange(values.shape[1])
    is_image = torch.stack([(start <= place) & (place < end) for start, end in spans]).any(0)
    averaged = is_image if config["mean_of"] == "image" else ~is_image
    replacement = values_without_picture(values, averaged)
    return {
        "saliency_mask": salient,
        "replacement": replacement,
        "attention_output_delta": attention_change(weights, values, salient, replacement),
    }


def loss(case: Mapping[str, Any]) -> dict[str, Any]:
    """The objective of conf/objective/cfpo.yaml with a case's settings; micro-batches weigh the same."""
    config, rows = case["config"], steps.rows_of(case["inputs"])
    terms, parts = terms_of(config), steps.micro_batches(case)
    objective = Objective(terms=terms, count_epsilon=steps.EPSILON)
    logprobs, losses, last = steps.leaf(rows["log_probs"]), [], None
    whole = steps.batch_of(rows, {})
    for part in parts:
        own = {name: values[part] for name, values in rows.items()}
        views = {}
        if "counterfactual_log_probs" in own:
            views = {"counterfactual": ViewScores(logprobs=own["counterfactual_log_probs"])}
        batch = steps.batch_of(own, views, ref_logprobs=own.get("ref_log_probs"))
        batch.advantages.copy_(whole.advantages[part])
        counts = MinibatchCounts(
            num_tokens=int(own["response_mask"].sum()), num_rollouts=len(own["rewards"])
        )
        scores = {IMAGE: ViewScores(logprobs=logprobs[part])}
        found = objective(batch, scores, minibatch=counts, progress=0.0)
        losses.append(found["total"] / len(parts))
        last = found.get("counterfactual_kl")
    total = torch.stack(losses).sum()
    return {
        "advantages": whole.advantages,
        "micro_losses": losses,
        "loss": total,
        "grad_log_probs": steps.gradient(total, logprobs),
        "last_micro_kl_cf": last if config["use_kl_cmve"] else None,
    }


def terms_of(config: Mapping[str, Any]) -> dict[str, Term]:
    """The terms; annealing multiplies the weight of three of them."""
    average = _AVERAGES[config["loss_avg_mode"]]
    gamma, annealed = config["kl_cmve_coef"], 1.0
    if config["step_coef"] is not None:
        annealed = config["step_coef"] / gamma
    kl: dict[str, Any] = {"average": average, "estimator": "k3", "log_ratio_max": 20.0}
    entropy: dict[str, Any] = {"estimator": "sampled", "average": "token"}

    def weight(switch: str, coefficient: float) -> float:
        return annealed * coefficient if config[switch] else 0.0

    return {
        "surrogate": ClippedSurrogate(
            weight=1.0,
            average=average,
            clip_low=config["clip_ratio_low"],
            clip_high=config["clip_ratio_high"],
            dual_clip=config["clip_ratio_dual"],
            log_ratio_max=20.0,
        ),
        "kl_ref": ReferenceKL(
            **kl,
            weight=config["kl_coef"] if config["use_kl_loss"] else 0.0,
            in_float32=False,
            maximum=10.0,
        ),
        "counterfactual_kl": ViewKL(
            **kl,
            weight=weight("use_kl_cmve", gamma),
            direction="raise",
            view="counterfactual",
            policy="old",
            maximum=config["kl_cmve_clipping"] if config.get("use_kl_cmve_clipping") else 10.0,
            top_p=config["kl_cmve_token_level_mask_top_p"]
            if config.get("use_kl_cmve_token_level_mask")
            else None,
        ),
        "entropy": ViewEntropy(
            **entropy, weight=weight("use_ori_entropy_loss", config["ori_entropy_loss_coef"])
        ),
        "counterfactual_entropy": ViewEntropy(
            **entropy,
            weight=weight("use_cmve_entropy_loss", config["cmve_entropy_loss_coef"]),
            view="counterfactual",
            policy="old",
        ),
    }
