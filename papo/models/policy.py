"""The policy: reads prompts, samples nothing, scores everything (sampling is papo.rollout).

Scoring computes the shared prefix of a group once: one pass of the vision tower and one of the
language model per prompt and view, then the G responses on top of the expanded cache ("shared").
The plain way, every row with its own copy of the prompt ("padded"), stays as the oracle, and is
what gradient checkpointing needs.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from PIL.Image import Image
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from papo.functional import TokenStatistics, token_statistics
from papo.models.adapter import QwenVLAdapter, VisionFeatures
from papo.models.prompt_encoder import PromptEncoder
from papo.types import Problem, PromptGroup, TokenScores, View


@dataclass(slots=True, kw_only=True, eq=False)
class Prefix:
    """Prompts read once, ready to be continued: one row per prompt, or per response when expanded.

    Attributes:
        cache: keys and values of the prompt tokens (right-padded) and of what was decoded since.
        attention_mask: True where the cache holds a real token.
        last_hidden: hidden state that predicts the next token of each row.
        next_positions: M-RoPE position of the next token of each row.
    """

    cache: DynamicCache
    attention_mask: Bool[Tensor, "row key"]
    last_hidden: Float[Tensor, "row hidden"]
    next_positions: Int[Tensor, " row"]

    def expand(self, num_responses: int) -> "Prefix":
        """Repeats every row `num_responses` times, contiguously; gradient flows into the prompt."""
        self.cache.batch_repeat_interleave(num_responses)
        return Prefix(
            cache=self.cache,
            attention_mask=self.attention_mask.repeat_interleave(num_responses, dim=0),
            last_hidden=self.last_hidden.repeat_interleave(num_responses, dim=0),
            next_positions=self.next_positions.repeat_interleave(num_responses),
        )

    def select(self, rows: Int[Tensor, " kept"]) -> "Prefix":
        """Keeps the given rows only."""
        self.cache.batch_select_indices(rows)
        return Prefix(
            cache=self.cache,
            attention_mask=self.attention_mask[rows],
            last_hidden=self.last_hidden[rows],
            next_positions=self.next_positions[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _PaddedPrompts:
    """Prompts side by side, padded on the right."""

    ids: Int[Tensor, "prompt prompt_token"]
    mask: Bool[Tensor, "prompt prompt_token"]
    image_slots: Bool[Tensor, "prompt prompt_token"]
    positions: Int[Tensor, "3 prompt prompt_token"]
    next_positions: Int[Tensor, " prompt"]

    def lengths(self) -> Int[Tensor, " prompt"]:
        return self.mask.sum(dim=1)


class VisionLanguagePolicy(nn.Module):
    """A Qwen-VL model that encodes problems and scores responses (the Policy Protocol).

    Args:
        model: the Hugging Face model; its parameters are the policy's.
        encoder: renders prompts and processes images.
        temperature: logits are divided by it, in scoring as in sampling.
        scoring: `shared` (prefix computed once per group) or `padded` (the oracle).
        head_chunk_size: response tokens per chunk of the vocabulary head; bounds its memory.
        gradient_checkpointing: recompute activations in backward. It forbids a cache (transformers
            drops it), so passes with gradient are padded then.

    Raises:
        ValueError: an unsupported model family, or temperature <= 0.
    """

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        encoder: PromptEncoder,
        temperature: float,
        scoring: str,
        head_chunk_size: int,
        gradient_checkpointing: bool,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(
                f"sampling needs a temperature above 0; got {temperature}. Set rollout.temperature."
            )
        if scoring not in ("shared", "padded"):
            raise ValueError(
                f"scoring is 'shared' or 'padded'; got {scoring!r}. Set model.scoring."
            )
        self.model = model
        self.adapter = QwenVLAdapter(model)
        self.encoder = encoder
        self.temperature = temperature
        self.scoring = scoring
        self.head_chunk_size = head_chunk_size
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})

        self.model.eval()

    def train(self, mode: bool = True) -> "VisionLanguagePolicy":
        """Leaves the model in evaluation mode: it has no dropout, and transformers drops the cache of
        a model in training mode that checkpoints activations, which would break every prefill."""
        self.training = mode
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "VisionLanguagePolicy":
        # The adapter must point at the copied model, and the encoder holds nothing to copy.
        return VisionLanguagePolicy(
            model=deepcopy(self.model, memo),
            encoder=self.encoder,
            temperature=self.temperature,
            scoring=self.scoring,
            head_chunk_size=self.head_chunk_size,
            gradient_checkpointing=self.gradient_checkpointing,
        )

    @property
    def device(self) -> torch.device:
        return self.adapter.head_weight.device

    @property
    def banned_token_ids(self) -> tuple[int, ...]:
        """Tokens the policy never writes: excluded from sampling and from every distribution."""
        return self.adapter.vision_token_ids

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """Tokens that end a response."""
        ids = self.model.generation_config.eos_token_id
        ids = [ids] if isinstance(ids, int) else list(ids or [])
        ids.append(self.encoder.tokenizer.eos_token_id)
        return tuple(sorted({int(i) for i in ids if i is not None}))

    def encode(self, problems: Sequence[Problem]) -> tuple[PromptGroup, ...]:
        """Tokenises each prompt and processes each image once; tensors stay on the CPU.

        Raises:
            ValueError: a problem whose `<image>` markers do not match its images.
        """
        return tuple(self._encode_one(problem) for problem in problems)

    def _encode_one(self, problem: Problem) -> PromptGroup:
        rendered = self.encoder.render(problem)
        patches, grid, counts = None, None, []
        if problem.images:
            patches, grid = self.encoder.process_images(problem.images)
            counts = (grid.prod(dim=1) // self.adapter.merge_size**2).tolist()
        prompt_ids = self.encoder.tokenize(problem, rendered, counts)
        positions, next_position = self.adapter.positions(prompt_ids, grid)
        return PromptGroup(
            problem=problem,
            prompt_ids=prompt_ids,
            position_ids=positions,
            next_position=next_position,
            patches=patches,
            image_grid_thw=grid,
        )

    def process_images(self, images: Sequence[Image]) -> Float[Tensor, "patch pixel"]:
        """Normalised patches of pictures, for masks that act on the raw picture."""
        return self.encoder.process_images(images)[0]

    def pictures(
        self, patches: Float[Tensor, "patch pixel"], image_grid_thw: Int[Tensor, "image 3"]
    ) -> tuple[Image, ...]:
        """What the vision tower sees, as pictures."""
        return self.encoder.pictures(patches, image_grid_thw)

    def prompt_length(self, problem: Problem) -> int:
        """Exact number of prompt tokens of a problem, without processing its images."""
        return self.encoder.prompt_length(problem)

    def decode_responses(
        self,
        groups: Sequence[PromptGroup],
        ids: Int[Tensor, "rollout token"],
        mask: Bool[Tensor, "rollout token"],
    ) -> tuple[str, ...]:
        """The responses as text, special tokens removed.

        Where the chat template already opened the thought (`<think>`), the text starts with it:
        graders and format rules see the whole response.
        """
        num_responses = ids.shape[0] // len(groups)
        prefixes = [
            self.encoder.response_prefix(self.encoder.render(group.problem)) for group in groups
        ]
        return tuple(
            prefixes[row // num_responses]
            + str(
                self.encoder.tokenizer.decode(
                    ids[row][mask[row]].tolist(), skip_special_tokens=True
                )
            )
            for row in range(ids.shape[0])
        )

    def score(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        *,
        masked_view: bool,
        full_vocabulary: bool,
    ) -> TokenScores:
        """Scores the G contiguous responses of each group, in one view or in both.

        A text-only prompt has no masked view: both views are then the same forward pass's.

        Returns:
            Nats, 0.0 at padding, with gradient where grad mode is on.

        Raises:
            ValueError: the rows are not whole groups, or a masked view was asked for that no
                ImageMask has made.
        """
        hidden = self._response_hidden(groups, response_ids, response_mask, "image")
        masked_hidden = (
            self._response_hidden(groups, response_ids, response_mask, "masked_image")
            if masked_view
            else None
        )
        statistics = self._statistics(
            hidden, masked_hidden, response_ids, response_mask, full_vocabulary
        )

        def unflatten(values: Tensor | None) -> Tensor | None:
            if values is None:
                return None
            padded = torch.zeros(response_mask.shape, dtype=values.dtype, device=values.device)
            return padded.masked_scatter(response_mask.to(values.device), values)

        logprobs = unflatten(statistics.logprobs)
        assert logprobs is not None
        return TokenScores(
            logprobs=logprobs,
            masked_logprobs=unflatten(statistics.masked_logprobs),
            entropy=unflatten(statistics.entropy),
            masked_entropy=unflatten(statistics.masked_entropy),
            perception_kl=unflatten(statistics.perception_kl),
        )

    def score_masked(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
    ) -> Float[Tensor, "rollout token"]:
        """log pi(o_t | q, I_mask) alone: one forward pass, of the masked image."""
        masked_groups = [
            replace(group, patches=_patches(group, "masked_image")) for group in groups
        ]
        scores = self.score(
            masked_groups, response_ids, response_mask, masked_view=False, full_vocabulary=False
        )
        return scores.logprobs

    def prefill(self, groups: Sequence[PromptGroup], view: View = "image") -> Prefix:
        """Reads each prompt once: one row per group, right-padded to the longest."""
        prompts = self._pad_prompts(groups)
        features = self._vision_features(groups, view)
        embeddings = self.adapter.embed(prompts.ids, prompts.image_slots, features)
        cache = DynamicCache(config=self.model.config.get_text_config())
        hidden = self.adapter.backbone(
            embeddings,
            prompts.positions,
            prompts.mask,
            image_slots=prompts.image_slots,
            features=features,
            cache=cache,
        )
        last = hidden[torch.arange(len(groups), device=hidden.device), prompts.lengths() - 1]
        return Prefix(
            cache=cache,
            attention_mask=prompts.mask,
            last_hidden=last,
            next_positions=prompts.next_positions,
        )

    def extend(
        self,
        prefix: Prefix,
        token_ids: Int[Tensor, "row token"],
        token_mask: Bool[Tensor, "row token"],
    ) -> Float[Tensor, "row token hidden"]:
        """Reads further tokens on top of a prefix, which moves on in place; returns their hidden states."""
        num_tokens = token_ids.shape[1]
        offsets = torch.arange(num_tokens, device=token_ids.device)
        positions = (prefix.next_positions[:, None] + offsets).expand(3, -1, -1)
        prefix.attention_mask = torch.cat([prefix.attention_mask, token_mask], dim=1)
        hidden = self.adapter.backbone(
            self.model.get_input_embeddings()(token_ids),
            positions,
            prefix.attention_mask,
            cache=prefix.cache,
        )
        prefix.last_hidden = hidden[:, -1]
        prefix.next_positions = prefix.next_positions + num_tokens
        return hidden

    def next_token_logprobs(
        self, hidden: Float[Tensor, "row hidden"]
    ) -> Float[Tensor, "row vocab"]:
        """log pi(. | prefix): temperature applied, banned tokens at -inf, float32 or wider."""
        logits = hidden @ self.adapter.head_weight.T.to(hidden.dtype)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / self.temperature
        logits[:, list(self.banned_token_ids)] = -torch.inf
        return logits.log_softmax(dim=-1)

    def save_pretrained(self, folder: Path) -> None:
        """Writes a folder that Hugging Face loads: safetensors, configuration, tokenizer, processor."""
        self.model.save_pretrained(folder)
        self.encoder.save_pretrained(folder)

    def _pad_prompts(self, groups: Sequence[PromptGroup]) -> _PaddedPrompts:
        longest = max(group.prompt_ids.shape[0] for group in groups)
        ids = torch.zeros(len(groups), longest, dtype=torch.long)
        mask = torch.zeros(len(groups), longest, dtype=torch.bool)
        positions = torch.zeros(3, len(groups), longest, dtype=torch.long)
        for row, group in enumerate(groups):
            length = group.prompt_ids.shape[0]
            ids[row, :length] = group.prompt_ids
            mask[row, :length] = True
            positions[:, row, :length] = group.position_ids
        next_positions = torch.tensor([group.next_position for group in groups])
        slots = (ids == self.adapter.image_token_id) & mask
        device = self.device
        return _PaddedPrompts(
            ids=ids.to(device),
            mask=mask.to(device),
            image_slots=slots.to(device),
            positions=positions.to(device),
            next_positions=next_positions.to(device),
        )

    def _vision_features(self, groups: Sequence[PromptGroup], view: View) -> VisionFeatures | None:
        """The images of all groups through the vision tower, each once."""
        pictured = [group for group in groups if group.patches is not None]
        if not pictured:
            return None
        patches = torch.cat([_require(_patches(group, view)) for group in pictured])
        grids = torch.cat([_require(group.image_grid_thw) for group in pictured])
        return self.adapter.vision_features(patches.to(self.device), grids.to(self.device))

    def _response_hidden(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        view: View,
    ) -> Float[Tensor, "row hidden"]:
        """Hidden states that predict the response tokens, without padding, in row-major order."""
        if not groups or response_ids.shape[0] % len(groups):
            raise ValueError(
                f"score needs whole groups; got {response_ids.shape[0]} responses for {len(groups)} groups"
            )
        response_ids = response_ids.to(self.device)
        response_mask = response_mask.to(self.device)
        recomputes = self.gradient_checkpointing and torch.is_grad_enabled()
        if self.scoring == "padded" or recomputes:
            self.model.train(recomputes)  # transformers checkpoints in training mode only
            hidden = self._padded_hidden(groups, response_ids, response_mask, view)
            self.model.eval()
        else:
            hidden = self._shared_hidden(groups, response_ids, response_mask, view)
        return hidden[response_mask]

    def _shared_hidden(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        view: View,
    ) -> Float[Tensor, "rollout token hidden"]:
        prefix = self.prefill(groups, view).expand(response_ids.shape[0] // len(groups))
        first = prefix.last_hidden[:, None]
        if response_ids.shape[1] == 1:
            return first
        # The hidden state of token t predicts token t+1, so the last token is never read.
        rest = self.extend(prefix, response_ids[:, :-1], response_mask[:, :-1])
        return torch.cat([first, rest], dim=1)

    def _padded_hidden(
        self,
        groups: Sequence[PromptGroup],
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        view: View,
    ) -> Float[Tensor, "rollout token hidden"]:
        num_responses, num_tokens = response_ids.shape[0] // len(groups), response_ids.shape[1]
        prompts = self._pad_prompts(groups)
        features = self._vision_features(groups, view)
        embeddings = self.adapter.embed(prompts.ids, prompts.image_slots, features)
        offsets = torch.arange(num_tokens, device=self.device)
        positions = (prompts.next_positions[:, None] + offsets).expand(3, -1, -1)

        def per_response(values: Tensor, dim: int = 0) -> Tensor:
            return values.repeat_interleave(num_responses, dim=dim)

        slots = per_response(prompts.image_slots)
        hidden = self.adapter.backbone(
            torch.cat(
                [per_response(embeddings), self.model.get_input_embeddings()(response_ids)], dim=1
            ),
            torch.cat([per_response(prompts.positions, 1), per_response(positions, 1)], dim=2),
            torch.cat([per_response(prompts.mask), response_mask], dim=1),
            image_slots=torch.cat([slots, torch.zeros_like(response_mask)], dim=1),
            features=_repeat_features(features, prompts.image_slots, num_responses),
        )
        first = hidden[
            torch.arange(hidden.shape[0], device=hidden.device), per_response(prompts.lengths()) - 1
        ]
        rest = hidden[:, prompts.ids.shape[1] : prompts.ids.shape[1] + num_tokens - 1]
        return torch.cat([first[:, None], rest], dim=1)

    def _statistics(
        self,
        hidden: Float[Tensor, "row hidden"],
        masked_hidden: Float[Tensor, "row hidden"] | None,
        response_ids: Int[Tensor, "rollout token"],
        response_mask: Bool[Tensor, "rollout token"],
        full_vocabulary: bool,
    ) -> TokenStatistics:
        return token_statistics(
            hidden,
            self.adapter.head_weight,
            response_ids.to(self.device)[response_mask.to(self.device)],
            temperature=self.temperature,
            banned_ids=torch.tensor(self.banned_token_ids, device=self.device),
            full_vocabulary=full_vocabulary,
            chunk_size=self.head_chunk_size,
            masked_hidden=masked_hidden,
        )


def _patches(group: PromptGroup, view: View) -> Tensor | None:
    if view == "image" or group.patches is None:
        return group.patches
    if group.masked_patches is None:
        raise ValueError(
            f"problem {group.problem.id!r} has images but no masked view; an ImageMask makes it (masking=)"
        )
    return group.masked_patches


def _require(value: Tensor | None) -> Tensor:
    assert value is not None, "a group with patches has a grid"
    return value


def _repeat_features(
    features: VisionFeatures | None,
    image_slots: Bool[Tensor, "prompt prompt_token"],
    num_responses: int,
) -> VisionFeatures | None:
    """The features of each prompt `num_responses` times, in the order of the repeated rows."""
    if features is None:
        return None
    counts = image_slots.sum(dim=1).tolist()

    def repeat(rows: Tensor) -> Tensor:
        return torch.cat([part.repeat(num_responses, 1) for part in rows.split(counts)])

    return VisionFeatures(
        tokens=repeat(features.tokens),
        deepstack=tuple(repeat(layer) for layer in features.deepstack),
    )
