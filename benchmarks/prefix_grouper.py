"""Scoring one text group, forward and backward, beside PrefixGrouper (arXiv:2506.05433), which shares prefixes too.

Its own recipe (README of 0.0.1.post1): inputs are concatenated, attention is registered with transformers, logits
are split. The same weights, tokens and versions on both sides; text alone, because its attention has no second
view and its package no code for pictures. `make peers` fetches it; it is pure Python and needs no environment.
"""

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from benchmarks.contest import PeerMissing
from benchmarks.measure import OUTPUT, cpu_seconds, ratios, take_turns
from benchmarks.models import (
    banned_token_ids,
    build_model,
    build_word_tokenizer,
    calibrated_config,
    policy_of,
    question,
    responses,
)
from benchmarks.report import Row, not_measured, row_of, run_alone
from benchmarks.scoring import SHARED
from papo.types import Problem

VERSION = "0.0.1.post1"
FOLDER = OUTPUT / f"prefix-grouper-{VERSION}"
WAYS = ("repeated", "prefix_grouper", "shared")
# Prompt, response, responses: a prompt as long as the responses, a longer one, one eight times as long.
CASES = ((256, 256, 8), (1024, 512, 8), (1024, 128, 8))


def prefix_grouper() -> Any:
    """The package.

    Raises:
        PeerMissing: it was never fetched.
    """
    if not FOLDER.is_dir():
        raise PeerMissing(f"no prefix-grouper {VERSION}; `make peers` fetches it, with a network")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    return import_module("prefix_grouper")


class TextGroup:
    """A model and a group without a picture, scored with gradient in each of the ways."""

    def __init__(self, prompt_tokens: int, response_tokens: int, num_responses: int) -> None:
        tokenizer = build_word_tokenizer()
        config = calibrated_config(tokenizer)
        self.policy = policy_of(build_model(config, tokenizer), tokenizer, scoring=SHARED)
        # Of its own: the policy's attention knows this project's layout alone. Equal seeds, equal weights.
        self.other = build_model(calibrated_config(tokenizer), tokenizer)
        problem = self._problem(1)
        words = 1 + prompt_tokens - self.policy.prompt_length(problem)
        self.groups = self.policy.encode([self._problem(words)])
        self.ids, self.mask = responses(num_responses, response_tokens)

    def _problem(self, words: int) -> Problem:
        text = question(words, 0)
        return Problem(id="0", question=text, answer="w0", images=(), source="benchmark")

    def logprobs(self, way: str) -> torch.Tensor:
        """log p of the response tokens, with gradient. [rollout token]"""
        if way == "shared":
            return self.policy.score(self.groups, self.ids, self.mask)["image"].logprobs
        return self._repeated() if way == "repeated" else self._grouped(prefix_grouper())

    def step(self, way: str) -> None:
        """Forward and backward. Gradients stay allocated, as between the micro-batches of a step."""
        model = self.policy.model if way == "shared" else self.other
        model.zero_grad(set_to_none=False)
        (-self.logprobs(way).mean()).backward()

    def _repeated(self) -> torch.Tensor:
        """Every response behind its own copy of the prompt, as trainers have it."""
        self._attend_by("sdpa")
        prompt = self.groups[0].prompt_ids.expand(len(self.ids), -1)
        logits = self.other(
            input_ids=torch.cat([prompt, self.ids], dim=1),
            logits_to_keep=self.ids.shape[1] + 1,
            use_cache=False,
        ).logits[:, :-1]
        return self._of_targets(logits, self.ids)

    def _grouped(self, package: Any) -> torch.Tensor:
        """One row: the prompt once and all responses after one another; logits of all of it, as its README has them."""
        import_module("prefix_grouper.utils.register_transformers").register_attention()
        AttentionInterface.register("sdpa_of_rows", _sdpa_of_rows)
        self._attend_by("prefix_grouper_attention")
        prompt = self.groups[0].prompt_ids[None]
        prompt_mask = torch.ones_like(prompt, dtype=torch.bool)
        grouper = package.PrefixGrouper.from_ungrouped_masks(
            prefix_mask=prompt_mask,
            suffix_mask=self.mask,
            group_sizes=len(self.ids),
            padding_mode="right",
            device=prompt.device,
        )
        input_ids = grouper.concat_input(prompt, prompt_mask, self.ids, self.mask)
        behind = torch.arange(self.ids.shape[1]) + prompt.shape[1]
        positions = torch.cat([torch.arange(prompt.shape[1]), behind.repeat(len(self.ids))])[None]
        logits = self.other(
            input_ids=input_ids,
            position_ids=positions.expand(3, 1, -1),
            prefix_grouper=grouper,
            prefix_grouper_attn_func="sdpa_of_rows",
            use_cache=False,
        ).logits
        _, _, of_responses, _ = grouper.split_output(logits, include_prefix_last=1)
        ids = grouper.convert_padding(self.ids, self.mask, padding_mode="right")
        return self._of_targets(of_responses[:, :-1], ids)

    def _attend_by(self, name: str) -> None:
        self.other.config.text_config._attn_implementation = name

    def _of_targets(self, logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        logits = logits.float()
        banned = torch.zeros(logits.shape[-1], dtype=torch.bool)
        banned[banned_token_ids(self.other)] = True
        logits = logits.masked_fill(banned, -torch.inf)
        return logits.gather(2, ids[..., None])[..., 0] - logits.logsumexp(dim=-1)


def _sdpa_of_rows(module: Any, query: Any, key: Any, value: Any, mask: Any, **kwargs: Any) -> Any:
    """Its masks are those of flash attention, which keys are padding; causal are the last queries before the last keys."""
    num_queries, num_keys = query.shape[2], key.shape[2]
    causal = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)
    mask = causal & mask[:, None, None].bool()
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, mask, **kwargs)


def measure(repetitions: int) -> list[Row]:
    return [row for case in CASES for row in _rows(case, repetitions)]


def _rows(case: tuple[int, int, int], repetitions: int) -> list[Row]:
    name = "P={} T={} G={}, text".format(*case)
    names = {way: f"scoring fwd+bwd: {way} / shared" for way in ("repeated", "prefix_grouper")}
    try:
        prefix_grouper()
    except PeerMissing as missing:
        return [not_measured(benchmark, name, str(missing)) for benchmark in names.values()]
    group = TextGroup(*case)
    timed: dict[str, Callable[[], float]] = {
        way: partial(cpu_seconds, partial(group.step, way)) for way in WAYS
    }
    seconds = take_turns(timed, repetitions=repetitions, warm_ups=1)
    return [
        row_of(
            ratios(seconds[way], seconds["shared"]),
            benchmark=benchmark,
            case=name,
            goal=(">=", 1.0),
            details={"seconds": seconds, "prefix_grouper": VERSION},
        )
        for way, benchmark in names.items()
    ]


def main() -> None:
    run_alone("prefix_grouper", measure, repetitions=3)


if __name__ == "__main__":
    main()
