"""Qwen2.5-VL and Qwen3-VL: pictures of any size in windows, M-RoPE positions on three axes.

Qwen3-VL also adds features of intermediate vision layers to the first language layers ("deepstack").
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn
from transformers import (
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import apply_rotary_pos_emb_vision
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)
from transformers.vision_utils import get_vision_window_index

from papo.models.families.family import (
    Family,
    FamilyAdapter,
    ModelParts,
    TinySizes,
    VisionFeatures,
)
from papo.models.families.pictures import FamilyPictures
from papo.models.families.qwen_windows import install_batched_windows, pass_arguments
from papo.types import PictureLayout


def grid_thw(pictures: Sequence[PictureLayout]) -> Int[Tensor, "image 3"]:
    """Patches per image along time, height and width, as transformers has them."""
    return torch.tensor([[1, each.rows, each.columns] for each in pictures])


class QwenVLAdapter(FamilyAdapter):
    """Reads prompts with a Qwen2.5-VL or Qwen3-VL model.

    Args:
        model: a `Qwen2_5_VLForConditionalGeneration` or `Qwen3VLForConditionalGeneration`.
    """

    parts = ModelParts(
        language="model.language_model",
        vision=("model.visual",),
        vision_layers="model.visual.blocks",
        mergers=("model.visual.merger", "model.visual.deepstack_merger_list"),
    )
    position_axes = 3

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        install_batched_windows(self.vision_tower)

    @staticmethod
    def check(config: Any) -> None:
        """Configurations of this family admit no other parts."""

    @property
    def vision_token_ids(self) -> tuple[int, ...]:
        config = self.model.config
        ids = (
            config.image_token_id,
            config.video_token_id,
            config.vision_start_token_id,
            config.vision_end_token_id,
        )
        return tuple(sorted({int(i) for i in ids}))

    def positions(
        self, prompt_ids: Int[Tensor, " prompt_token"], pictures: Sequence[PictureLayout]
    ) -> tuple[Int[Tensor, "3 prompt_token"], int]:
        """M-RoPE positions: time, height, width.

        Explicit positions always: without token types the model silently falls back to 1-D ones.
        """
        token_types = (prompt_ids == self.image_token_id).long()
        positions, _ = self.model.model.get_rope_index(
            prompt_ids[None],
            mm_token_type_ids=token_types[None],
            image_grid_thw=grid_thw(pictures) if pictures else None,
        )
        return positions[:, 0], int(positions.max()) + 1

    def vision_features(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> VisionFeatures:
        # The grid stays on the CPU: nothing of the pass then waits for the device.
        grids = grid_thw(pictures)
        arguments = pass_arguments(self.vision_tower, grids, patches.device)
        outputs = self.model.model.get_image_features(patches, grids, return_dict=True, **arguments)
        # one list of per-image features per deepstack layer; Qwen2.5-VL has no such field
        layers = outputs.get("deepstack_features") or ()
        return VisionFeatures(
            tokens=torch.cat(outputs.pooler_output),
            deepstack=tuple(torch.cat(layer) for layer in layers),
        )

    def received_attention(
        self, patches: Float[Tensor, "patch pixel"], pictures: Sequence[PictureLayout]
    ) -> Float[Tensor, " patch"]:
        """Of all layers of Qwen3-VL, and the full-attention ones of Qwen2.5-VL."""
        tower, grids = self.vision_tower, grid_thw(pictures).to(patches.device)
        received = torch.zeros(patches.shape[0], device=patches.device)
        layers = getattr(tower, "fullatt_block_indexes", range(len(tower.blocks)))

        def note(
            attention: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
        ) -> None:
            received.add_(_attention_received(attention, *arguments, **keywords))

        with _hooks([tower.blocks[layer].attn for layer in layers], note):
            tower(patches, grid_thw=grids)
        return _in_patch_order(tower, received, grids)

    @staticmethod
    def smallest_picture(config: Any) -> PictureLayout:
        side = int(config.vision_config.spatial_merge_size)
        return PictureLayout(rows=side, columns=side, token_side=side)

    @staticmethod
    def patch_channels(config: Any) -> int:
        vision = config.vision_config
        channels = getattr(vision, "in_channels", 3)
        return int(channels * vision.temporal_patch_size * vision.patch_size**2)

    @staticmethod
    def most_patches(config: Any, max_pixels: int) -> tuple[int, int]:
        vision = config.vision_config
        patches = max_pixels // vision.patch_size**2
        return patches, patches // vision.spatial_merge_size**2

    @staticmethod
    def vision_flops(config: Any, picture: PictureLayout) -> int:
        vision = config.vision_config
        hidden, merge = vision.hidden_size, vision.spatial_merge_size
        patch = 2 * hidden * QwenVLAdapter.patch_channels(config)
        is_gated = config.model_type == "qwen2_5_vl"
        block = 2 * (4 * hidden**2 + (3 if is_gated else 2) * hidden * vision.intermediate_size)
        merged = hidden * merge**2
        merger = 2 * merged * (merged + vision.out_hidden_size)
        num_mergers = 1 + len(getattr(vision, "deepstack_visual_indexes", ()))
        num_full = len(vision.fullatt_block_indexes) if is_gated else vision.depth
        rows, columns = picture.rows, picture.columns
        patches = rows * columns
        linear = (
            patches * (patch + vision.depth * block) + patches // merge**2 * num_mergers * merger
        )
        attention = num_full * patches**2
        if num_full < vision.depth:
            side = vision.window_size // vision.patch_size
            attention += (vision.depth - num_full) * sum(
                (height * width) ** 2
                for height in _window_sides(rows, side)
                for width in _window_sides(columns, side)
            )
        return int(linear + 4 * hidden * attention)


class QwenVLPictures(FamilyPictures):
    """One tile per picture, whose size is near the picture's own."""

    processor_class = Qwen2VLImageProcessorPil
    # Early checkpoints have names of their own for it.
    processor_names = (
        "Qwen2VLImageProcessor",
        "Qwen2_5_VLImageProcessor",
        "Qwen3VLImageProcessor",
    )
    served = True

    def limit(self, *, min_pixels: int | None, max_pixels: int | None) -> None:
        size = dict(self.processor.size)
        if min_pixels is not None:
            size["shortest_edge"] = min_pixels
        if max_pixels is not None:
            size["longest_edge"] = max_pixels
        self.processor.size = size

    @property
    def limits(self) -> tuple[int, int]:
        return self.processor.size["shortest_edge"], self.processor.size["longest_edge"]

    def layout(self, height: int, width: int) -> PictureLayout:
        side, merge = self.processor.patch_size, self.processor.merge_size
        least, most = self.limits
        resized = smart_resize(height, width, side * merge, min_pixels=least, max_pixels=most)
        rows, columns = (length // side for length in resized)
        return PictureLayout(rows=rows, columns=columns, token_side=merge)

    def process(
        self, images: Sequence[Image.Image]
    ) -> tuple[Float[Tensor, "patch pixel"], tuple[PictureLayout, ...]]:
        processed = self.processor(images=list(images), return_tensors="pt")
        pictures = tuple(
            PictureLayout(rows=rows, columns=columns, token_side=self.processor.merge_size)
            for _, rows, columns in processed["image_grid_thw"].tolist()
        )
        return processed["pixel_values"], pictures

    def prompt_ids(self, picture: PictureLayout) -> list[int]:
        return [self.image_token_id] * picture.num_tokens


def tiny_settings(sizes: TinySizes, tokenizer: Any) -> tuple[dict[str, Any], ...]:
    """What the configurations of both families share: of text, of rotations, of vision, and the tokens."""
    half = sizes.head_channels // 2
    vision = {
        "depth": sizes.vision_depth,
        "hidden_size": sizes.vision_hidden_size,
        "intermediate_size": 2 * sizes.vision_hidden_size,
        "num_heads": sizes.vision_num_heads,
        "out_hidden_size": sizes.hidden_size,
        "initializer_range": sizes.initializer_range,
    }
    rope = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8],
    }
    ids = tokenizer.get_vocab()
    tokens = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": True,
    }
    return sizes.text_config(tokenizer), rope, vision, tokens


def _tiny_qwen2_5_vl(sizes: TinySizes, tokenizer: Any) -> PreTrainedModel:
    text, rope, vision, tokens = tiny_settings(sizes, tokenizer)
    vision |= {"fullatt_block_indexes": list(range(sizes.vision_depth)), "patch_size": 14}
    return Qwen2_5_VLForConditionalGeneration(
        Qwen2_5_VLConfig(
            text_config={**text, "rope_parameters": rope}, vision_config=vision, **tokens
        )
    )


def _tiny_qwen3_vl(sizes: TinySizes, tokenizer: Any) -> PreTrainedModel:
    text, rope, vision, tokens = tiny_settings(sizes, tokenizer)
    vision |= {
        "patch_size": 16,
        "num_position_embeddings": 256,
        "deepstack_visual_indexes": list(range(min(sizes.vision_depth, sizes.num_layers))),
    }
    text |= {
        "head_dim": sizes.head_channels,
        "rope_parameters": {**rope, "mrope_interleaved": True},
    }
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(text_config=text, vision_config=vision, **tokens)
    )


def tiny_processor(config: Any) -> Qwen2VLImageProcessorPil:
    vision = config.vision_config
    return Qwen2VLImageProcessorPil(
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )


QWEN2_5_VL, QWEN3_VL = (
    Family(
        adapter=QwenVLAdapter,
        pictures=QwenVLPictures,
        special_tokens=(
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<|vision_start|>",
            "<|vision_end|>",
            "<|image_pad|>",
            "<|video_pad|>",
        ),
        end_token="<|im_end|>",
        pad_token="<|endoftext|>",
        # The chat format of Qwen-VL, without its default system message.
        chat_template=(
            "{% for message in messages %}<|im_start|>{{ message.role }}\n"
            "{% for part in message.content %}"
            "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
            "{% else %}{{ part.text }}{% endif %}"
            "{% endfor %}<|im_end|>\n{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        ),
        tiny_model=tiny_model,
        tiny_processor=tiny_processor,
    )
    for tiny_model in (_tiny_qwen2_5_vl, _tiny_qwen3_vl)
)


def _attention_received(
    attention: Any,
    hidden_states: Float[Tensor, "patch hidden"],
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **_: Any,
) -> Float[Tensor, " patch"]:
    """What `attention` computes and keeps to itself: softmax(q k^T), mean of heads, sum of queries."""
    shape = (hidden_states.shape[0], 3, attention.num_heads, -1)
    queries, keys, _values = attention.qkv(hidden_states).reshape(shape).unbind(dim=1)
    queries, keys = apply_rotary_pos_emb_vision(queries, keys, *position_embeddings)
    received = []
    pictures = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
    for q, k in zip(queries.split(pictures), keys.split(pictures), strict=True):
        # Head by head: a picture of 5,000 patches makes maps of 100 MB each.
        maps = (
            ((q[:, head] @ k[:, head].T) * attention.scaling).float().softmax(dim=-1).sum(dim=0)
            for head in range(q.shape[1])
        )
        received.append(torch.stack(tuple(maps)).mean(dim=0))
    return torch.cat(received)


def _in_patch_order(
    tower: Any, values: Float[Tensor, " patch"], grids: Tensor
) -> Float[Tensor, " patch"]:
    """Undoes the order in which towers with windowed attention keep their patches."""
    if not hasattr(tower, "window_size"):
        return values
    order, _ = get_vision_window_index(
        grids,
        spatial_merge_size=tower.spatial_merge_size,
        window_size=tower.window_size,
        patch_size=tower.patch_size,
    )
    tokens = values.reshape(-1, tower.spatial_merge_unit)
    return tokens[order.argsort().to(tokens.device)].reshape(-1)


@contextmanager
def _hooks(modules: list[nn.Module], note: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(note, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _window_sides(length: int, side: int) -> list[int]:
    """Lengths of the windows along one side; the last one is cut."""
    return [min(side, length - start) for start in range(0, length, side)]
