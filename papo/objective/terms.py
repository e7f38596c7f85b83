"""The terms of PAPO (Wang et al., arXiv:2507.06448), which GRPO, DAPO and most successors share.

docs/fidelity.md says where paper, official code and a correct gradient differ, setting by setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from papo.functional import (
    SAMPLED_ESTIMATORS,
    clip_events,
    clipped_surrogate,
    estimate_divergence,
    restricted_perception_kl,
    truncated_importance,
)
from papo.objective.errors import SettingError
from papo.objective.term import Number, PolicyOfView, Term, TokenValues, look, view_needs
from papo.types import IMAGE, Needs, RolloutBatch, TokenScores


@dataclass(kw_only=True, eq=False)
class ClippedSurrogate(Term):
    """The policy-gradient surrogate; its gradient raises what has a positive advantage.

    Args:
        clip_low: epsilon_l, the probability ratio is clipped below 1 - clip_low.
        clip_high: epsilon_h, and above 1 + clip_high.
        dual_clip: a negative advantage costs at most dual_clip * |A|; None for no such bound.
        log_ratio_max: the log-ratio is clamped to this many nats; None for no clamp.
        importance_cap: the surrogate of a token is multiplied by min(pi_old / mu, cap), mu the engine that drew
            it; None for no correction.
    """

    clip_low: Number
    clip_high: Number
    dual_clip: Number | None
    log_ratio_max: Number | None
    importance_cap: Number | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_number("importance_cap", above=0.0)
        self.check_number("clip_low", above=0.0, below=1.0)
        self.check_number("clip_high", above=0.0)
        self.check_number("dual_clip", above=1.0)
        self.check_number("log_ratio_max", above=0.0)

    @property
    def needs(self) -> Needs:
        return Needs(behaviour=self.importance_cap is not None)

    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        surrogate = clipped_surrogate(
            scores[IMAGE].logprobs,
            batch.old_logprobs,
            batch.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
            log_ratio_max=self.log_ratio_max,
        )
        return surrogate if self.importance_cap is None else surrogate * self._importance(batch)

    def _importance(self, batch: RolloutBatch) -> TokenValues:
        assert batch.behaviour_logprobs is not None, (
            "the objective reads a term whose needs are met"
        )
        assert self.importance_cap is not None
        return truncated_importance(
            batch.old_logprobs, batch.behaviour_logprobs, cap=self.importance_cap
        )

    def watch(self, batch: RolloutBatch, scores: TokenScores) -> Mapping[str, TokenValues]:
        logprobs = scores[IMAGE].logprobs
        events = clip_events(
            logprobs,
            batch.old_logprobs,
            batch.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )
        watched = {
            "clip_fraction_low": events.low.to(logprobs.dtype),
            "clip_fraction_high": events.high.to(logprobs.dtype),
            "clip_fraction_dual": events.dual.to(logprobs.dtype),
        }
        if self.importance_cap is not None:
            is_capped = self._importance(batch) >= self.importance_cap
            watched["importance_capped"] = is_capped.to(logprobs.dtype)
        return watched


@dataclass(kw_only=True, eq=False)
class ReferenceKL(Term):
    """KL(pi || pi_ref) at the sampled tokens.

    Args:
        estimator: a sampled estimator; papo.functional.divergence tells their gradients apart.
        log_ratio_max: log-ratios are clamped to this many nats; None for no clamp.
        in_float32: computed in float32 whatever the log-probs' precision, as in the official code.
        maximum: each token's KL is cut here, nats; None for no cut.
    """

    estimator: str
    log_ratio_max: Number | None
    in_float32: bool
    maximum: Number | None

    def __post_init__(self) -> None:
        super().__post_init__()
        # No "exact": the reference is scored on the sampled tokens only.
        self.check_choice("estimator", SAMPLED_ESTIMATORS)
        self.check_number("log_ratio_max", above=0.0)
        self.check_number("maximum", above=0.0)

    @property
    def needs(self) -> Needs:
        return Needs(reference=True)

    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        assert batch.ref_logprobs is not None, "the objective reads a term whose needs are met"
        logprobs = scores[IMAGE].logprobs
        token_kl = _estimate(
            self.estimator,
            logprobs,
            batch.ref_logprobs,
            batch.old_logprobs,
            in_float32=self.in_float32,
            log_ratio_max=self.log_ratio_max,
        )
        capped = token_kl if self.maximum is None else token_kl.clamp(max=self.maximum)
        return capped.to(logprobs.dtype)


@dataclass(kw_only=True, eq=False)
class ViewKL(Term):
    """KL(pi(. | q, I) || pi(. | q, view)): how much a token depends on what the view hides.

    PAPO raises it for a masked view; too large a weight collapses the policy.

    Args:
        view: name of the view.
        policy: whose view, see `papo.objective.term.look`.
        estimator: a sampled estimator, or "exact", the KL over the whole vocabulary.
        log_ratio_max: log-ratios are clamped to this many nats; None for no clamp.
        in_float32: as of ReferenceKL.
        maximum: each token's KL is cut here, nats; None for no cut.
        top_p: only this share of each response's tokens, those with the largest KL, count; None for all.
        gate: "all" rollouts count, or only "correct" ones.
    """

    view: str
    policy: str
    estimator: str
    log_ratio_max: Number | None = None
    in_float32: bool = False
    maximum: Number | None = None
    top_p: Number | None = None
    gate: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("policy", get_args(PolicyOfView))
        self.check_choice("estimator", (*SAMPLED_ESTIMATORS, "exact"))
        self.check_number("log_ratio_max", above=0.0)
        self.check_number("maximum", above=0.0)
        self.check_number("top_p", above=0.0, below=1.0)
        self.check_choice("gate", ("all", "correct"))
        if self.estimator == "exact" and self.view == IMAGE and self.weight:
            raise SettingError(
                "{estimator}=exact is the KL of another view from the image; got {view}=image"
            )
        if self.estimator == "exact" and self.policy != "current" and self.weight:
            raise SettingError(
                "{estimator}=exact compares two full distributions of the policy being updated, with gradient in "
                f"both, so it needs {{policy}}=current; got {self.policy} (a rollout keeps only the sampled tokens' "
                "log-probs). Or choose a sampled {estimator}."
            )

    @property
    def needs(self) -> Needs:
        if self.estimator == "exact":
            return view_needs(self.view, "current", "kl_from_image")
        return view_needs(self.view, self.policy, "logprobs")

    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        return restricted_perception_kl(
            self._token_kl(batch, scores),
            batch.response_mask,
            counted=batch.correct if self.gate == "correct" else None,
            top_p=self.top_p,
            maximum=self.maximum,
        ).to(scores[IMAGE].logprobs.dtype)

    def watch_responses(
        self, batch: RolloutBatch, scores: TokenScores
    ) -> Mapping[str, TokenValues]:
        """The variance over the tokens of a response (over all tokens, it would depend on the cut)."""
        mask = batch.response_mask
        token_kl = self._token_kl(batch, scores).to(scores[IMAGE].logprobs.dtype)
        mean = (token_kl * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True)
        return {"variance": (token_kl - mean).square()}

    def _token_kl(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        if self.estimator == "exact":
            return look(batch, scores, self.view, "current", "kl_from_image")
        return _estimate(
            self.estimator,
            scores[IMAGE].logprobs,
            look(batch, scores, self.view, self.policy),
            batch.old_logprobs,
            in_float32=self.in_float32,
            log_ratio_max=self.log_ratio_max,
        )


@dataclass(kw_only=True, eq=False)
class ViewEntropy(Term):
    """The entropy of the policy given a view; lowered, it keeps the perception KL from being raised by noise.

    Args:
        estimator: "sampled" (-log p of the sampled tokens) or "exact" (over the whole vocabulary).
        view: name of the view.
        policy: whose view, see `papo.objective.term.look`.
    """

    estimator: str
    view: str = IMAGE
    policy: str = "current"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("policy", get_args(PolicyOfView))
        self.check_choice("estimator", ("sampled", "exact"))
        if self.estimator == "exact" and self.policy == "old" and self.weight:
            raise SettingError(
                "{estimator}=exact with {policy}=old has no entropy of another view: the rollout keeps only the "
                "sampled tokens' log-probs of it, not its distribution. Set {policy}=current, {estimator}=sampled "
                "or {weight}=0."
            )

    @property
    def needs(self) -> Needs:
        quantity = "entropy" if self.estimator == "exact" else "logprobs"
        return view_needs(self.view, self.policy, quantity)

    def __call__(self, batch: RolloutBatch, scores: TokenScores) -> TokenValues:
        if self.estimator == "exact":
            return look(batch, scores, self.view, self.policy, "entropy")
        return -look(batch, scores, self.view, self.policy)


def _estimate(
    estimator: str,
    logprobs: TokenValues,
    other: TokenValues,
    old_logprobs: TokenValues,
    *,
    in_float32: bool,
    log_ratio_max: float | None,
) -> TokenValues:
    def precise(values: TokenValues) -> TokenValues:
        return values.float() if in_float32 else values

    return estimate_divergence(
        estimator,  # type: ignore[arg-type]
        precise(logprobs),
        precise(other),
        old_logprobs=precise(old_logprobs),
        log_ratio_max=log_ratio_max,
    )
