"""Sampling: what a token costs by the number of rows, where it goes, and whether scoring agrees with it."""

import time
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu.setting import Setting
from benchmarks.gpu.worker import Answer
from papo.models.scoring import BACKENDS
from papo.rollout import draw_tokens
from papo.types import derive_seeds


def decode(setting: Setting) -> Iterator[Answer]:
    """Milliseconds a token of the run's own engine: the difference of two lengths, so that prefill is apart."""
    plan, num_responses = _plan(setting)
    short, long = (2, 4) if setting.is_toy else (4, 28)
    for rows in setting.sizes.rows:
        groups = setting.groups(max(1, rows // num_responses))
        size = min(rows, num_responses)
        seconds = {}
        setting.reset_peak()
        # The first time of a shape is another.
        for length in (short, short, long):
            engine = plan.make_engine(policy=setting.policy, max_response_tokens=length)
            seconds[length] = _sampling_seconds(setting, engine, groups, size)
        token = (seconds[long] - seconds[short]) / (long - short)
        yield {
            "rows": len(groups) * size,
            "ms_a_token": 1e3 * token,
            "tokens_per_second": len(groups) * size / token,
            "prefill_s": seconds[short] - short * token,
            "peak_gib": setting.peak_since_reset(),
        }


def _plan(setting: Setting) -> tuple[Any, int]:
    plan = setting.plan(prompts=1)
    return plan, plan.num_responses


def _sampling_seconds(setting: Setting, engine: Any, groups: Any, size: int) -> float:
    seeds = derive_seeds(0, len(groups))
    with setting.precision():
        setting.wait()
        started = time.perf_counter()
        engine.sample(groups, size, seeds)
        setting.wait()
        return time.perf_counter() - started


def decode_parts(setting: Setting) -> Iterator[Answer]:
    """Where a token's time goes, for the most rows: layers (host and all), head, draw."""
    plan, num_responses = _plan(setting)
    policy, rows = setting.policy, setting.sizes.rows[0]
    steps, warm_ups = (2, 1) if setting.is_toy else (16, 4)
    with setting.precision(), torch.no_grad():
        prefix = policy.prefill(setting.groups(rows // num_responses)).share(num_responses)
        ids = torch.randint(100, 1000, (rows, 1), device=setting.device)
        mask = torch.ones_like(ids, dtype=torch.bool)
        uniform = torch.rand(rows, device=setting.device, dtype=torch.float64)
        spent = dict.fromkeys(("launching", "layers", "head", "draw"), 0.0)
        for step in range(steps + warm_ups):
            times = [_now(setting)]
            policy.extend(prefix, ids, mask)
            launched = time.perf_counter()
            times.append(_now(setting))
            logprobs = policy.next_token_logprobs(prefix.last_hidden)
            times.append(_now(setting))
            draw_tokens(logprobs, uniform, plan.config.rollout.top_p, plan.config.rollout.top_k)
            times.append(_now(setting))
            if step >= warm_ups:
                spent["launching"] += launched - times[0]
                for name, index in (("layers", 0), ("head", 1), ("draw", 2)):
                    spent[name] += times[index + 1] - times[index]
    mean = {name: seconds / steps for name, seconds in spent.items()}
    yield {
        "rows": rows,
        **{f"ms_{name}": 1e3 * seconds for name, seconds in mean.items()},
        "rates": {"decode_host": mean["layers"], "decode_head": mean["head"]},
    }


def _now(setting: Setting) -> float:
    setting.wait()
    return time.perf_counter()


def parity(setting: Setting) -> Iterator[Answer]:
    """How far the log-probabilities that sampling records are from those that scoring computes, in nats."""
    plan, num_responses = _plan(setting)
    engine = plan.make_engine(
        policy=setting.policy, max_response_tokens=setting.sizes.sampled_tokens
    )
    groups = setting.groups(setting.sizes.prompts[2])
    with setting.precision():
        sampled = engine.sample(groups, num_responses, derive_seeds(0, len(groups)))
    for backend in ("split", "padded"):
        assert backend in BACKENDS, "a setting of model.scoring"
        policy = setting.scoring_by(backend)
        with setting.precision(), torch.no_grad():
            scored = policy.score(groups, sampled.ids, sampled.mask)
        off = (scored["image"].logprobs.cpu() - sampled.logprobs)[sampled.mask].double()
        ratio = off.exp()
        yield {
            "scored_by": backend,
            "tokens": off.numel(),
            "nats_mean": float(off.abs().mean()),
            "nats_p99": float(off.abs().quantile(0.99)),
            "nats_max": float(off.abs().max()),
            # Of the surrogate's clip range.
            "share_of_ratios_clipped": float(
                (
                    (ratio < 1 - plan.config.objective.clip_low)
                    | (ratio > 1 + plan.config.objective.clip_high)
                )
                .double()
                .mean()
            ),
        }
