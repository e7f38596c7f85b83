"""All that is specific to a model family: positions, vision features, the backbone, the head.

Supported: Qwen2.5-VL and Qwen3-VL. Both place images by M-RoPE (three position axes) and splice
vision features into the slots of the image token; Qwen3-VL also adds features of intermediate
vision layers to the first language layers ("deepstack"). A new family needs an adapter with these
methods and an entry in `SUPPORTED_FAMILIES`.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from papo.models.counterfactual import Intervention
from papo.models.shared_prefix import SharedPrefixLayout, install_shared_prefix_attention
from papo.models.vision_windows import install_batched_windows, pass_arguments

SUPPORTED_FAMILIES = ("qwen2_5_vl", "qwen3_vl")
"""`model_type` of the Hugging Face configurations an adapter exists for."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VisionFeatures:
    """What the vision tower says of the images of one prompt, one row per image token.

    Attributes:
        tokens: features that replace the embeddings of the image slots.
        deepstack: features added after the first language layers; empty for Qwen2.5-VL.
    """

    tokens: Float[Tensor, "image_token hidden"]
    deepstack: tuple[Float[Tensor, "image_token hidden"], ...] = ()

    def split(self, num_tokens: Sequence[int]) -> list["VisionFeatures"]:
        """The features of consecutive prompts with these numbers of image tokens."""
        layers = [layer.split(list(num_tokens)) for layer in self.deepstack]
        return [
            VisionFeatures(tokens=tokens, deepstack=tuple(layer[index] for layer in layers))
            for index, tokens in enumerate(self.tokens.split(list(num_tokens)))
        ]

    @classmethod
    def concatenate(cls, parts: Sequence["VisionFeatures"]) -> "VisionFeatures":
        """The features of all parts, in order."""
        layers = zip(*(part.deepstack for part in parts), strict=True)
        return cls(
            tokens=torch.cat([part.tokens for part in parts]),
            deepstack=tuple(torch.cat(layer) for layer in layers),
        )


class QwenVLAdapter:
    """Reads prompts with a Qwen2.5-VL or Qwen3-VL model.

    Args:
        model: a `Qwen2_5_VLForConditionalGeneration` or `Qwen3VLForConditionalGeneration`.

    Raises:
        ValueError: the model is of another family.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        family = model.config.model_type
        if family not in SUPPORTED_FAMILIES:
            raise ValueError(
                f"no adapter for model family {family!r}; supported: {', '.join(SUPPORTED_FAMILIES)}. "
                "Choose another model=, or add an adapter to papo/models/adapter.py "
                "(positions, vision features, backbone, head)."
            )
        self.model = model
        # transformers renamed the argument in 5.24 and warns at the old name.
        known = inspect.signature(model.model.language_model.forward).parameters
        self.cache_argument = "cache" if "cache" in known else "past_key_values"
        install_shared_prefix_attention(model.model.language_model)
        install_batched_windows(self.vision_tower)

    @property
    def merge_size(self) -> int:
        """Patches per image token along one side."""
        return int(self.model.config.vision_config.spatial_merge_size)

    @property
    def patch_channels(self) -> int:
        """Numbers that describe one patch."""
        vision = self.model.config.vision_config
        return int(vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)

    @property
    def head_channels(self) -> int:
        """Numbers of a key of one head of the language model."""
        return int(self.model.model.language_model.layers[0].self_attn.head_dim)

    @property
    def image_token_id(self) -> int:
        return int(self.model.config.image_token_id)

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        """Ids that stand for vision input: a response that contains one cannot be scored."""
        config = self.model.config
        ids = (
            config.image_token_id,
            config.video_token_id,
            config.vision_start_token_id,
            config.vision_end_token_id,
        )
        return tuple(sorted({int(i) for i in ids}))

    @property
    def head_weight(self) -> Float[Tensor, "vocab hidden"]:
        return self.model.lm_head.weight

    @property
    def language_model(self) -> nn.Module:
        return self.model.model.language_model

    @property
    def vision_tower(self) -> nn.Module:
        return self.model.model.visual

    def positions(
        self,
        prompt_ids: Int[Tensor, " prompt_token"],
        image_grid_thw: Int[Tensor, "image 3"] | None,
    ) -> tuple[Int[Tensor, "3 prompt_token"], int]:
        """M-RoPE positions of a prompt, and the position of the first token after it.

        Explicit positions always: without token types the model silently falls back to 1-D ones.
        """
        token_types = (prompt_ids == self.image_token_id).long()
        positions, _ = self.model.model.get_rope_index(
            prompt_ids[None], mm_token_type_ids=token_types[None], image_grid_thw=image_grid_thw
        )
        return positions[:, 0], int(positions.max()) + 1

    def vision_features(
        self, patches: Float[Tensor, "patch pixel"], image_grid_thw: Int[Tensor, "image 3"]
    ) -> VisionFeatures:
        """One pass of the vision tower over the images of one or several prompts.

        The grid stays on the CPU: nothing of the pass then waits for the device.
        """
        arguments = pass_arguments(self.vision_tower, image_grid_thw, patches.device)
        outputs = self.model.model.get_image_features(
            patches, image_grid_thw, return_dict=True, **arguments
        )
        # one list of per-image features per deepstack layer; Qwen2.5-VL has no such field
        layers = outputs.get("deepstack_features") or ()
        return VisionFeatures(
            tokens=torch.cat(outputs.pooler_output),
            deepstack=tuple(torch.cat(layer) for layer in layers),
        )

    def token_embeddings(
        self, token_ids: Int[Tensor, "row token"]
    ) -> Float[Tensor, "row token hidden"]:
        return self.model.get_input_embeddings()(token_ids)

    def embed(
        self,
        token_ids: Int[Tensor, "row token"],
        image_slots: Bool[Tensor, "row token"],
        features: VisionFeatures | None,
    ) -> Float[Tensor, "row token hidden"]:
        """Token embeddings with the vision features in the image slots, in row-major order.

        Slots are given, never searched for by id: a sampled image token is then just a token.
        """
        embeddings = self.token_embeddings(token_ids)
        if features is None:
            return embeddings
        if int(image_slots.sum()) != features.tokens.shape[0]:
            raise ValueError(
                f"{int(image_slots.sum())} image slots for {features.tokens.shape[0]} image features"
            )
        return embeddings.masked_scatter(
            image_slots[..., None], features.tokens.to(embeddings.dtype)
        )

    def backbone(
        self,
        embeddings: Float[Tensor, "row token hidden"],
        positions: Int[Tensor, "3 row token"],
        attention_mask: Bool[Tensor, "row key"] | None,
        *,
        image_slots: Bool[Tensor, "row token"] | None = None,
        features: VisionFeatures | None = None,
        cache: Cache | None = None,
        shared_prefix: SharedPrefixLayout | None = None,
        intervention: Intervention | None = None,
    ) -> Float[Tensor, "row token hidden"]:
        """Last hidden states of the language model; `cache` is read and extended in place.

        Rows are masked by `attention_mask`, or `shared_prefix` says what the tokens of one packed row see.
        """
        extra: dict[str, object] = {}
        if features is not None and features.deepstack:
            extra["visual_pos_masks"] = image_slots
            extra["deepstack_visual_embeds"] = list(features.deepstack)
        if attention_mask is not None:
            mask = attention_mask.long()
        else:
            # transformers hands a four-dimensional mask through as it is; the layout replaces it.
            mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeddings.device)
            extra["shared_prefix"] = shared_prefix
        if intervention is not None:
            extra["intervention"] = intervention
        extra[self.cache_argument] = cache
        outputs = self.model.model.language_model(
            inputs_embeds=embeddings,
            position_ids=positions,
            attention_mask=mask,
            use_cache=cache is not None,
            **extra,
        )
        return outputs.last_hidden_state
