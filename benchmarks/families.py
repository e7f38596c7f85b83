"""What sharing a prompt is worth for each model family: scoring and rollout beside its own Hugging Face model.

Random models of 0.6 M to 1.6 M parameters, the architectures alone (papo.models.build_tiny_policy); both ways get the same
weights, pictures and tokens. Prompts are mostly text, because a tiny tile is 4 image tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measure import cpu_seconds, ratios, take_turns
from benchmarks.report import Row, not_measured, row_of, run_alone
from papo.models import VisionLanguagePolicy
from papo.models.families import FAMILIES, TinySizes
from papo.models.families.qwen_vl import grid_thw
from papo.models.families.tiles import put_together
from papo.models.loading import build_policy
from papo.models.tiny import build_byte_tokenizer, build_tiny_model
from papo.rollout import SharedPrefillSampler
from papo.types import IMAGE, Problem, PromptGroup, derive_seeds

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class FamilyCase:
    """One group: words of the question (a token a byte), response tokens T, responses G."""

    question_bytes: int
    response_tokens: int
    num_responses: int


CASE = FamilyCase(question_bytes=320, response_tokens=64, num_responses=8)
PIXELS = 112
"""Side of the picture."""


def _grids(group: PromptGroup, ids: torch.Tensor, image_token: int) -> Inputs:
    assert group.patches is not None
    rows = ids.shape[0]
    return {
        "pixel_values": group.patches.repeat(rows, 1),
        "image_grid_thw": grid_thw(group.pictures).repeat(rows, 1),
        "mm_token_type_ids": (ids == image_token).long(),
    }


def _tiles(group: PromptGroup, ids: torch.Tensor, image_token: int) -> Inputs:
    assert group.patches is not None
    tiles = put_together(group.patches, group.pictures[0])
    return {"pixel_values": tiles.repeat(ids.shape[0], 1, 1, 1)}


def _nested_tiles(group: PromptGroup, ids: torch.Tensor, image_token: int) -> Inputs:
    pixels = _tiles(group, ids, image_token)["pixel_values"]
    return {"pixel_values": pixels.unflatten(0, (ids.shape[0], -1))}


def _typed_tiles(group: PromptGroup, ids: torch.Tensor, image_token: int) -> Inputs:
    return {
        **_tiles(group, ids, image_token),
        "token_type_ids": (ids == image_token).long(),
    }


PLAIN: dict[str, Callable[[PromptGroup, torch.Tensor, int], Inputs]] = {
    "qwen2_5_vl": _grids,
    "qwen3_vl": _grids,
    "qwen3_5": _grids,
    "internvl": _tiles,
    "smolvlm": _nested_tiles,
    "gemma3": _typed_tiles,
}
"""What a family's model is given of the pictures of repeated rows, beside their ids."""


class FamilyGroup:
    """A random model of a family and one group, ready for either way."""

    def __init__(self, family: str, case: FamilyCase) -> None:
        self.case, self.plain_inputs = case, PLAIN[family]
        tokenizer = build_byte_tokenizer(family)
        sizes = TinySizes(
            hidden_size=128,
            num_layers=4,
            num_heads=4,
            num_key_value_heads=2,
            intermediate_size=512,
            vision_hidden_size=96,
            vision_depth=4,
            vision_num_heads=4,
            initializer_range=0.05,
        )
        self.model: Any = build_tiny_model(family=family, tokenizer=tokenizer, sizes=sizes, seed=0)
        # No response ends early: the token that would end one is one that neither way may sample.
        self.image_token = int(FAMILIES[family].adapter(self.model).image_token_id)
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(self.image_token)
        self.model.generation_config.eos_token_id = self.image_token
        self.policies = {
            way: self._policy(FAMILIES[family], tokenizer, way)
            for way in ("auto", "twopass", "padded")
        }
        # Where prompts are not packed, twopass is the way to share them.
        self.shared = "auto" if self.policies["auto"].shares_prefix else "twopass"
        pixels = np.random.default_rng(0).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
        problem = Problem(
            id="0",
            question="<image>" + "word " * (case.question_bytes // 5),
            answer="0",
            images=(Image.fromarray(pixels),),
            source="benchmark",
        )
        [self.group] = self.policies["auto"].encode([problem])
        shape = (case.num_responses, case.response_tokens)
        self.ids = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
        self.mask = torch.ones_like(self.ids, dtype=torch.bool)
        self.sampler = SharedPrefillSampler(
            policy=self.policies[self.shared],
            temperature=1.0,
            top_p=1.0,
            top_k=None,
            max_response_tokens=case.response_tokens,
            max_rows=case.num_responses,
        )

    def _policy(self, family: Any, tokenizer: Any, way: str) -> VisionLanguagePolicy:
        return build_policy(
            model=self.model,
            tokenizer=tokenizer,
            image_processor=family.tiny_processor(self.model.config),
            min_pixels=None,
            max_pixels=None,
            gradient_checkpointing=False,
            freeze_vision=False,
            temperature=1.0,
            scoring=way,
            head_chunk_size=1024,
        )

    @property
    def name(self) -> str:
        prompt = self.group.prompt_ids.shape[0]
        return f"P={prompt} T={self.case.response_tokens} G={self.case.num_responses}"

    def logprobs(self, way: str) -> torch.Tensor:
        """log p of the response tokens, with gradient. [rollout token]"""
        if way != "plain":
            return self.policies[way].score([self.group], self.ids, self.mask)[IMAGE].logprobs
        ids = torch.cat([self._repeated(), self.ids], dim=1)
        logits = self.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            logits_to_keep=self.case.response_tokens + 1,
            use_cache=False,
            **self._inputs(ids),
        ).logits[:, :-1]
        logits[..., self._banned()] = -torch.inf
        return logits.float().log_softmax(dim=-1).gather(2, self.ids[..., None])[..., 0]

    def step(self, way: str) -> None:
        """Forward and backward."""
        self.model.zero_grad(set_to_none=False)
        (-self.logprobs(way).mean()).backward()

    def sample_shared(self) -> int:
        """Samples with one prefill; returns the number of tokens."""
        drawn = self.sampler.sample([self.group], self.case.num_responses, seeds=derive_seeds(0, 1))
        return int(drawn.mask.sum())

    def sample_plain(self) -> int:
        """`generate` on repeated inputs; returns the number of tokens."""
        ids = self._repeated()
        generated = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=self.case.response_tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            suppress_tokens=self._banned(),
            **self._inputs(ids),
        )
        return int(generated[:, ids.shape[1] :].numel())

    def _inputs(self, ids: torch.Tensor) -> Inputs:
        if hasattr(self.model.model, "rope_deltas"):
            self.model.model.rope_deltas = None  # cached state of an earlier call
        return self.plain_inputs(self.group, ids, self.image_token)

    def _repeated(self) -> torch.Tensor:
        return self.group.prompt_ids.expand(self.case.num_responses, -1)

    def _banned(self) -> list[int]:
        return list(self.policies["auto"].banned_token_ids)


def measure(repetitions: int) -> list[Row]:
    rows = []
    for family in FAMILIES:
        if family in PLAIN:
            rows += _rows(family, repetitions)
        else:
            rows.append(not_measured(f"{family}: scoring, rollout", "all", "no plain inputs here"))
    return rows


def _rows(family: str, repetitions: int) -> list[Row]:
    group = FamilyGroup(family, CASE)
    scored: dict[str, Callable[[], object]] = {
        way: partial(group.step, way) for way in ("plain", "padded", group.shared)
    }
    sampled: dict[str, Callable[[], object]] = {
        "plain": group.sample_plain,
        "shared": group.sample_shared,
    }
    of_scoring, of_rollout = (
        take_turns(
            {name: partial(cpu_seconds, call) for name, call in ways.items()},
            repetitions=repetitions,
            warm_ups=1,
        )
        for ways in (scored, sampled)
    )
    way = f"shared ({group.shared})"
    return [
        row_of(
            ratios(seconds[slow], seconds[fast]),
            benchmark=f"{family}: {what}",
            case=group.name,
            goal=None,
            details={"seconds": seconds},
        )
        for what, seconds, slow, fast in (
            (f"scoring fwd+bwd: plain / {way}", of_scoring, "plain", group.shared),
            (f"scoring fwd+bwd: padded / {way}", of_scoring, "padded", group.shared),
            ("rollout: generate / shared prefill", of_rollout, "plain", "shared"),
        )
    ]


def main() -> None:
    run_alone("families", measure, repetitions=3)


if __name__ == "__main__":
    main()
