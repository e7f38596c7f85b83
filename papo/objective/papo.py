"""The PAPO objective as a sum of named, weighted terms. GRPO is this with gamma and both etas 0.

    total = surrogate + beta * kl_ref - gamma * perception_kl
            + eta_full * entropy + eta_masked * masked_entropy          (minimised)

docs/fidelity.md says where paper, official code and a correct gradient differ, setting by setting.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from papo.functional import (
    SAMPLED_ESTIMATORS,
    SampledEstimator,
    clip_events,
    clipped_surrogate,
    estimate_divergence,
    linear_decay,
    perception_kl,
    restricted_perception_kl,
    sequence_mean,
    token_mean,
    truncated_importance,
    zero_padding,
)
from papo.objective.errors import NonFiniteTermError
from papo.types import MinibatchCounts, RolloutBatch, TokenScores

Average = Literal["token", "sequence"]
MaskedPolicy = Literal["old", "current", "current_detached"]
Entropy = Literal["sampled", "exact"]
GammaSchedule = Literal["fixed", "linear"]
Gate = Literal["all", "correct"]
Number = float | int


class PAPOObjective:
    """Wang et al., arXiv:2507.06448, with every choice the paper leaves open as a setting.

    Args:
        clip_low: epsilon_l, the probability ratio is clipped below 1 - clip_low.
        clip_high: epsilon_h, and above 1 + clip_high.
        dual_clip: a negative advantage costs at most dual_clip * |A|; None for no such bound.
        beta: weight of KL(pi || pi_ref), minimised.
        gamma: weight of KL(pi || pi_mask), maximised; too large collapses the policy.
        gamma_schedule: "fixed", or "linear": gamma and, as in the official code, both etas fall
            linearly to 0.
        gamma_anneal_until: share of the run (0, 1] at which a linear schedule reaches 0; None with
            a fixed one.
        eta_full: weight of the entropy given the full image, lowered.
        eta_masked: weight of the entropy given the masked image, lowered.
        average: how surrogate, kl_ref and perception_kl are averaged: every "token" or every
            "sequence" weighs the same.
        entropy_average: the same for the two entropies.
        count_epsilon: added to every token count that divides (official code: 1e-8).
        masked_policy: whose masked view: "old" (scored once per rollout, constant), "current"
            (scored in the update, with gradient) or "current_detached" (without).
        entropy: "sampled" (-log p of the sampled tokens) or "exact" (over the whole vocabulary).
        perception_estimator: a sampled estimator (k1, k2, k3, k2_straight_through, k3_weighted,
            total_variation, jsd; papo.functional.divergence tells their gradients apart) or
            "exact", the KL over the whole vocabulary.
        ref_estimator: a sampled estimator for the reference KL.
        kl_log_ratio_max: log-ratios of the surrogate and of every sampled KL are clamped to this
            many nats; None for no clamp.
        kl_in_float32: sampled KLs are computed in float32 whatever the log-probs' precision, as in
            the official code; no difference for float32 log-probs.
        perception_kl_max: each token's perception KL is cut here, nats; None for no cut.
        ref_kl_max: each token's reference KL is cut here, nats; None for no cut.
        perception_top_p: only this share of each response's tokens, those with the largest
            perception KL, count; None for all.
        gate: "all" rollouts' perception KL counts, or only that of "correct" ones.
        importance_cap: the surrogate of a token is multiplied by min(pi_old / mu, cap), mu the engine that drew
            it; None for no correction.

    Raises:
        ValueError: a setting is out of range, or two contradict each other; names the config key.
    """

    def __init__(
        self,
        *,
        clip_low: Number,
        clip_high: Number,
        dual_clip: Number | None,
        beta: Number,
        gamma: Number,
        gamma_schedule: str,
        gamma_anneal_until: Number | None,
        eta_full: Number,
        eta_masked: Number,
        average: str,
        entropy_average: str,
        count_epsilon: Number,
        masked_policy: str,
        entropy: str,
        perception_estimator: str,
        ref_estimator: str,
        kl_log_ratio_max: Number | None,
        kl_in_float32: bool,
        perception_kl_max: Number | None,
        ref_kl_max: Number | None,
        perception_top_p: Number | None,
        gate: str,
        importance_cap: Number | None = None,
    ) -> None:
        self.clip_low = _number("clip_low", clip_low, above=0.0, below=1.0)
        self.clip_high = _number("clip_high", clip_high, above=0.0)
        self.dual_clip = _optional("dual_clip", dual_clip, above=1.0)
        self.beta = _weight("beta", beta)
        self.gamma = _weight("gamma", gamma)
        self.gamma_schedule: GammaSchedule = _choice(
            "gamma_schedule", gamma_schedule, get_args(GammaSchedule)
        )
        self.gamma_anneal_until = _optional("gamma_anneal_until", gamma_anneal_until, above=0.0)
        self.eta_full = _weight("eta_full", eta_full)
        self.eta_masked = _weight("eta_masked", eta_masked)
        self.average: Average = _choice("average", average, get_args(Average))
        self.entropy_average: Average = _choice(
            "entropy_average", entropy_average, get_args(Average)
        )
        self.count_epsilon = _weight("count_epsilon", count_epsilon)
        self.masked_policy: MaskedPolicy = _choice(
            "masked_policy", masked_policy, get_args(MaskedPolicy)
        )
        self.entropy: Entropy = _choice("entropy", entropy, get_args(Entropy))
        self.perception_estimator: SampledEstimator | Literal["exact"] = _choice(
            "perception_estimator", perception_estimator, (*SAMPLED_ESTIMATORS, "exact")
        )
        # No "exact": the reference is scored on the sampled tokens only.
        self.ref_estimator: SampledEstimator = _choice(
            "ref_estimator", ref_estimator, SAMPLED_ESTIMATORS
        )
        self.kl_log_ratio_max = _optional("kl_log_ratio_max", kl_log_ratio_max, above=0.0)
        self.kl_in_float32 = kl_in_float32
        self.perception_kl_max = _optional("perception_kl_max", perception_kl_max, above=0.0)
        self.ref_kl_max = _optional("ref_kl_max", ref_kl_max, above=0.0)
        self.perception_top_p = _optional(
            "perception_top_p", perception_top_p, above=0.0, below=1.0
        )
        self.gate: Gate = _choice("gate", gate, get_args(Gate))
        self.importance_cap = _optional("importance_cap", importance_cap, above=0.0)
        self._check_contradictions()

    @property
    def needs_reference(self) -> bool:
        """Whether `batch.ref_logprobs` is read: the reference costs nothing when beta is 0."""
        return self.beta > 0

    @property
    def needs_old_masked_logprobs(self) -> bool:
        """Whether the masked view must be scored once per rollout, by the rollout policy."""
        return self._reads_masked_view and self.masked_policy == "old"

    @property
    def needs_masked_view(self) -> bool:
        """Whether each update must score the masked view too."""
        return self._reads_masked_view and self.masked_policy != "old"

    @property
    def needs_full_vocabulary(self) -> bool:
        """Whether the scores must hold exact entropies or the exact perception KL."""
        exact_entropy = self.entropy == "exact" and (self.eta_full > 0 or self.eta_masked > 0)
        return exact_entropy or (self.perception_estimator == "exact" and self.gamma > 0)

    @property
    def depends_on_progress(self) -> bool:
        """Whether a rollout's loss depends on how many rollouts the run has."""
        return self.gamma_anneal_until is not None

    def weights(self, progress: float) -> dict[str, float]:
        """Returns what each term is multiplied by in the total, at this point of the run."""
        fade = 1.0
        if self.gamma_anneal_until is not None:
            fade = linear_decay(progress, until=self.gamma_anneal_until)
        return {
            "surrogate": 1.0,
            "kl_ref": self.beta,
            "perception_kl": -self.gamma * fade,
            "entropy": self.eta_full * fade,
            "masked_entropy": self.eta_masked * fade,
        }

    def __call__(
        self,
        batch: RolloutBatch,
        scores: TokenScores,
        *,
        minibatch: RolloutBatch | MinibatchCounts,
        progress: float,
    ) -> dict[str, Tensor]:
        """Returns the unweighted terms and their weighted sum "total", the loss; nats per token.

        Terms: surrogate, kl_ref, perception_kl, entropy, masked_entropy. Each is normalised by the
        token and rollout counts of `minibatch`, so terms and gradients of its micro-batches add up
        to its own. A term of weight 0 carries no gradient, and is absent where its inputs are.

        Raises:
            ValueError: a weighted term lacks its inputs.
            NonFiniteTermError: a weighted term is NaN or infinite.
        """
        scores = _clean(scores, batch.response_mask)
        weights = self.weights(progress)
        tokenwise = {
            "surrogate": self._surrogate(batch, scores),
            "kl_ref": self._kl_ref(batch, scores),
            "perception_kl": self._perception_kl(batch, scores),
            "entropy": self._entropy(scores),
            "masked_entropy": self._masked_entropy(batch, scores),
        }
        configured = self.weights(progress=0.0)
        terms: dict[str, Tensor] = {}
        for name, values in tokenwise.items():
            if values is None:
                if configured[name] != 0.0:
                    raise ValueError(self._missing(name))
                continue
            is_entropy = name in ("entropy", "masked_entropy")
            average = self.entropy_average if is_entropy else self.average
            term = self._average(values, batch.response_mask, average, minibatch)
            terms[name] = term if weights[name] != 0.0 else term.detach()
        terms["total"] = _weighted_sum(terms, weights)
        return terms

    @torch.no_grad()
    def diagnostics(
        self, batch: RolloutBatch, scores: TokenScores, minibatch: RolloutBatch | MinibatchCounts
    ) -> dict[str, Tensor]:
        """Returns what to watch besides the terms, without gradient; docs/fidelity.md defines each.

        Token means over `minibatch`, so values of its micro-batches add up. The variance of the
        perception KL is that over the tokens of a response, averaged over responses (a variance
        over all tokens would depend on the cut); it is absent where the perception KL is.
        """
        scores = _clean(scores, batch.response_mask)
        events = clip_events(
            scores.logprobs,
            batch.old_logprobs,
            batch.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )
        log_ratio = scores.logprobs - batch.old_logprobs
        tokenwise: dict[str, Tensor] = {
            "clip_fraction_low": events.low.to(log_ratio.dtype),
            "clip_fraction_high": events.high.to(log_ratio.dtype),
            "clip_fraction_dual": events.dual.to(log_ratio.dtype),
            "old_kl": -log_ratio,
            "ratio_mean": log_ratio.exp(),
            "sampled_entropy": -scores.logprobs,
        }
        if self.importance_cap is not None:
            is_capped = self._importance(batch) >= self.importance_cap
            tokenwise["importance_capped"] = is_capped.to(log_ratio.dtype)
        masked_logprobs = self._masked_logprobs(batch, scores)
        if masked_logprobs is not None:
            prefers_masked = masked_logprobs > scores.logprobs
            tokenwise["sampled_masked_entropy"] = -masked_logprobs
            tokenwise["masked_preferred_fraction"] = prefers_masked.to(log_ratio.dtype)
        measured = {
            name: self._average(values, batch.response_mask, "token", minibatch)
            for name, values in tokenwise.items()
        }
        token_kl = self._token_perception_kl(batch, scores)
        if token_kl is not None:
            mask = batch.response_mask
            token_kl = token_kl.to(log_ratio.dtype)
            mean = (token_kl * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
            squares = (token_kl - mean).square()
            measured["perception_kl_variance"] = self._average(squares, mask, "sequence", minibatch)
        return measured

    def _average(
        self,
        values: Float[Tensor, "rollout token"],
        mask: Bool[Tensor, "rollout token"],
        average: Average,
        minibatch: RolloutBatch | MinibatchCounts,
    ) -> Float[Tensor, ""]:
        epsilon = self.count_epsilon
        if average == "token":
            return token_mean(values, mask, num_tokens=minibatch.num_tokens, count_epsilon=epsilon)
        return sequence_mean(
            values, mask, num_rollouts=minibatch.num_rollouts, count_epsilon=epsilon
        )

    @property
    def _reads_masked_view(self) -> bool:
        return self.gamma > 0 or self.eta_masked > 0

    def _kl_precision(
        self, logprobs: Float[Tensor, "rollout token"]
    ) -> Float[Tensor, "rollout token"]:
        return logprobs.float() if self.kl_in_float32 else logprobs

    def _surrogate(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Float[Tensor, "rollout token"]:
        surrogate = clipped_surrogate(
            scores.logprobs,
            batch.old_logprobs,
            batch.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
            log_ratio_max=self.kl_log_ratio_max,
        )
        return surrogate if self.importance_cap is None else surrogate * self._importance(batch)

    def _importance(self, batch: RolloutBatch) -> Float[Tensor, "rollout token"]:
        if batch.behaviour_logprobs is None or self.importance_cap is None:
            raise ValueError(
                f"objective.importance_cap={self.importance_cap} corrects for the engine that drew the tokens, and "
                "batch.behaviour_logprobs is None"
            )
        return truncated_importance(
            batch.old_logprobs, batch.behaviour_logprobs, cap=self.importance_cap
        )

    def _kl_ref(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Float[Tensor, "rollout token"] | None:
        if batch.ref_logprobs is None:
            return None
        token_kl = estimate_divergence(
            self.ref_estimator,
            self._kl_precision(scores.logprobs),
            self._kl_precision(batch.ref_logprobs),
            old_logprobs=self._kl_precision(batch.old_logprobs),
            log_ratio_max=self.kl_log_ratio_max,
        )
        capped = token_kl if self.ref_kl_max is None else token_kl.clamp(max=self.ref_kl_max)
        return capped.to(scores.logprobs.dtype)

    def _masked_logprobs(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Float[Tensor, "rollout token"] | None:
        """log q of the sampled tokens, q as `masked_policy` says; it decides where gradient flows."""
        if self.masked_policy == "old":
            return batch.masked_logprobs
        if self.masked_policy == "current_detached" and scores.masked_logprobs is not None:
            return scores.masked_logprobs.detach()
        return scores.masked_logprobs

    def _token_perception_kl(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Float[Tensor, "rollout token"] | None:
        if self.perception_estimator == "exact":
            return scores.perception_kl
        masked_logprobs = self._masked_logprobs(batch, scores)
        if masked_logprobs is None:
            return None
        return perception_kl(
            self._kl_precision(scores.logprobs),
            self._kl_precision(masked_logprobs),
            old_logprobs=self._kl_precision(batch.old_logprobs),
            estimator=self.perception_estimator,
            log_ratio_max=self.kl_log_ratio_max,
        )

    def _perception_kl(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Float[Tensor, "rollout token"] | None:
        token_kl = self._token_perception_kl(batch, scores)
        if token_kl is None:
            return None
        return restricted_perception_kl(
            token_kl,
            batch.response_mask,
            counted=batch.correct if self.gate == "correct" else None,
            top_p=self.perception_top_p,
            maximum=self.perception_kl_max,
        ).to(scores.logprobs.dtype)

    def _entropy(self, scores: TokenScores) -> Float[Tensor, "rollout token"] | None:
        return scores.entropy if self.entropy == "exact" else -scores.logprobs

    def _masked_entropy(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Float[Tensor, "rollout token"] | None:
        if self.entropy == "exact":
            # Under "old" the rollout kept no full distribution; what the scores hold is pi_theta's.
            if self.masked_policy == "old" or scores.masked_entropy is None:
                return None
            live = self.masked_policy == "current"
            return scores.masked_entropy if live else scores.masked_entropy.detach()
        masked_logprobs = self._masked_logprobs(batch, scores)
        return None if masked_logprobs is None else -masked_logprobs

    def _missing(self, term: str) -> str:
        wanted = {
            "kl_ref": "batch.ref_logprobs (needs_reference)",
            "perception_kl": "scores.perception_kl (needs_masked_view, needs_full_vocabulary)",
            "entropy": "scores.entropy (needs_full_vocabulary)",
            "masked_entropy": "scores.masked_entropy (needs_masked_view, needs_full_vocabulary)",
        }[term]
        sampled = self.perception_estimator != "exact" if "kl" in term else self.entropy != "exact"
        if term in ("perception_kl", "masked_entropy") and sampled:
            wanted = (
                "batch.masked_logprobs (needs_old_masked_logprobs)"
                if self.masked_policy == "old"
                else "scores.masked_logprobs (needs_masked_view)"
            )
        return f"the term {term!r} has a weight but not its input: {wanted} is None"

    def _check_contradictions(self) -> None:
        until = self.gamma_anneal_until
        if (self.gamma_schedule == "linear") != (until is not None) or (until or 0.0) > 1.0:
            raise ValueError(
                "objective.gamma_schedule=linear needs objective.gamma_anneal_until, the share "
                "(0, 1] of the run at which gamma reaches 0 (official code: 0.5), and fixed needs "
                f"null; got gamma_schedule={self.gamma_schedule}, gamma_anneal_until={until}"
            )
        if self.perception_estimator == "exact" and self.masked_policy != "current" and self.gamma:
            raise ValueError(
                "objective.perception_estimator=exact compares two full distributions of the "
                "policy being updated, with gradient in both, so it needs "
                f"objective.masked_policy=current; got {self.masked_policy} (a rollout keeps "
                "only the sampled tokens' log-probs). Or choose a sampled perception_estimator."
            )
        if self.entropy == "exact" and self.masked_policy == "old" and self.eta_masked:
            raise ValueError(
                "objective.entropy=exact with objective.masked_policy=old has no masked entropy: "
                "the rollout keeps only the sampled tokens' log-probs of the masked view, not its "
                "distribution. Set objective.masked_policy=current, objective.entropy=sampled or "
                "objective.eta_masked=0."
            )


def _number(key: str, value: Number, *, above: float, below: float = math.inf) -> float:
    if not above < value < below:
        upper = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"objective.{key} must be above {above:g}{upper}; got {value}")
    return float(value)


def _optional(
    key: str, value: Number | None, *, above: float, below: float = math.inf
) -> float | None:
    return None if value is None else _number(key, value, above=above, below=below)


def _weight(key: str, value: Number) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(
            f"objective.{key} is a weight, 0 (off) or positive; got {value}. The sign of each term "
            "is fixed: kl_ref and entropies are lowered, the perception KL is raised."
        )
    return float(value)


def _choice(key: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise ValueError(f"objective.{key} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def _clean(scores: TokenScores, mask: Bool[Tensor, "rollout token"]) -> TokenScores:
    """The scores with exact zeros at padding, so nothing there can reach a term or a gradient."""

    def clean(values: Tensor | None) -> Tensor | None:
        return None if values is None else zero_padding(values, mask)

    return TokenScores(
        logprobs=zero_padding(scores.logprobs, mask),
        masked_logprobs=clean(scores.masked_logprobs),
        entropy=clean(scores.entropy),
        masked_entropy=clean(scores.masked_entropy),
        perception_kl=clean(scores.perception_kl),
    )


def _weighted_sum(
    terms: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float]
) -> Float[Tensor, ""]:
    """The loss. Terms of weight 0 stay out of it: 0 * inf would make a healthy loss NaN."""
    weighted = {name: term for name, term in terms.items() if weights[name] != 0.0}
    total = torch.stack([weights[name] * term for name, term in weighted.items()]).sum()
    for name, term in weighted.items():
        if not bool(torch.isfinite(term)):
            raise NonFiniteTermError(name, term.item(), total)
    return total
